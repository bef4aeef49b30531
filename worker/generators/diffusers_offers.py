"""What a pipeline of diffusers offers, told by its signature, scheduler and configuration."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from promptmill import errors
from promptmill.models import Caps
from worker.generators import offers
from worker.generators.options import Options

MOST_STEPS, MOST_GUIDANCE = 200, 50.0
BUCKET = ("task", "width", "height", "steps", "guidance", "strength")


def caps(pipes: Mapping[str, Any], options: Options, possible: tuple[str, ...]) -> Caps:
    """`pipes`: by task, all around the same weights; `possible`: quantizations. Raises
    `errors.SettingInvalid` for one of the options' sizes that the pipeline would round."""
    pipe = next(iter(pipes.values()))
    known, scale = signature(pipe), int(getattr(pipe, "vae_scale_factor", 8))
    steps, guidance = usual(pipe)
    sizes = options.sizes or offers.sizes(_side(pipe, scale), max(8, scale * 2))
    _require_cells(options.sizes, pipe)
    parameters = ["steps"]
    if "guidance_scale" in known and guidance is not None:
        parameters.append("guidance")
        # a second guidance beside the first means that the negative prompt needs that one
        if "negative_prompt" in known and "true_cfg_scale" not in known:
            parameters.append("negative_prompt")
    if {"img2img", "inpaint"} & set(pipes):
        parameters.append("strength")
    if options.loras:
        parameters.append("lora")
    weight = guidance or 0.0
    return Caps(
        sizes=sizes,
        tasks=tuple(pipes),
        parameters=tuple(parameters),
        steps=options.steps or (1, steps, max(MOST_STEPS, steps)),
        guidance=options.guidance or (0.0, weight, max(MOST_GUIDANCE, weight)),
        batch_shapes=options.batch_shapes,
        quantizations=possible,
        batch_invariant=False,
        bucket_fields=(*BUCKET, "lora") if options.loras else BUCKET,
        budget=sizes[0][0] * sizes[0][1] * options.batch_shapes[-1],
        loras=tuple(options.loras),
        cost=0.05 * steps,
    )


def _require_cells(sizes: Sequence[tuple[int, int]], pipe: Any) -> None:
    cell = _cell(pipe)
    for width, height in sizes:
        if width % cell or height % cell:
            raise errors.SettingInvalid(
                f"{width}x{height}: sizes of {type(pipe).__name__} are multiples of {cell}"
            )


def _cell(pipe: Any) -> int:
    """Pixels of a side of what the network sees as one: a latent, or a patch of them, told by
    the transformer or, where the pipeline packs them itself, by what it scales pictures to."""
    config = getattr(getattr(pipe, "transformer", None), "config", None)
    patch = getattr(config, "patch_size", None)
    scale = int(getattr(pipe, "vae_scale_factor", 1)) * (patch if isinstance(patch, int) else 1)
    scaled = getattr(getattr(pipe, "image_processor", None), "config", None)
    return math.lcm(scale, int(getattr(scaled, "vae_scale_factor", 1)))


def usual(pipe: Any) -> tuple[int, float | None]:
    """(steps, guidance) that suit the checkpoint: those of its distillation, told by its
    scheduler and configuration, else the pipeline's own. Guidance None: it takes none."""
    known, scheduler = signature(pipe), pipe.scheduler
    kind, spacing = type(scheduler).__name__, scheduler.config.get("timestep_spacing")
    unet, transformer = getattr(pipe, "unet", None), getattr(pipe, "transformer", None)
    if kind == "LCMScheduler":
        embedded = unet is not None and unet.config.get("time_cond_proj_dim")
        return 4, 8.5 if embedded else 1.0
    if kind == "SCMScheduler":
        return 2, _default(known, "guidance_scale", 4.5)
    if unet is not None and kind.startswith("Euler") and spacing == "trailing":
        return 1, 0.0
    if transformer is not None and transformer.config.get("guidance_embeds") is False:
        return 4, None
    return int(_default(known, "num_inference_steps", 30)), _default(known, "guidance_scale", None)


def _default(known: Mapping[str, inspect.Parameter], name: str, missing: Any) -> Any:
    held = known[name].default if name in known else None
    return held if isinstance(held, int | float) else missing


def signature(pipe: Any) -> Mapping[str, inspect.Parameter]:
    """What a call of the pipeline takes, by name."""
    return inspect.signature(type(pipe).__call__).parameters


def _side(pipe: Any, scale: int) -> int:
    """Pixels of a side of the square that the checkpoint was made for."""
    for part in (getattr(pipe, "unet", None), getattr(pipe, "transformer", None)):
        held = getattr(getattr(part, "config", None), "sample_size", None)
        if isinstance(held, int):
            return held * scale
    return int(getattr(pipe, "default_sample_size", 1024 // scale) or 64) * scale
