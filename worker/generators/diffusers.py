"""Any text-to-image pipeline that diffusers loads from a checkpoint, with image-to-image and
inpainting where the pipeline has them. Nothing is imported before `load`."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from promptmill import errors
from promptmill.jobs import Item
from promptmill.models import Caps
from worker.generators import (
    adapters,
    compiled,
    diffusers_offers,
    diffusers_pixels,
    hub,
    quantization,
)
from worker.generators import device as devices
from worker.generators.base import Input, OutOfMemory, Pixels, Rejected, Resolved, Watch
from worker.generators.checkpoint import DIFFUSERS, Checkpoint, linear_share
from worker.generators.options import Options

log = logging.getLogger(__name__)

COMPONENTS = ("transformer", "unet")  # the large part of a pipeline, by its attribute


class Diffusers:
    """One pipeline. An image depends on its item alone at a given batch shape: each has a
    stream of random numbers of its own, and a pipeline whose text encoder pads to the
    longest neighbour is found out on load and runs one image at a time."""

    def __init__(self, found: Checkpoint, options: Options) -> None:
        self.checkpoint = found
        self.options = options
        self.name = found.name
        self.caps = Caps(sizes=options.sizes or ((512, 512),), batch_shapes=options.batch_shapes)
        self.watch: Watch | None = None
        self._fingerprint = ""
        self._device = "cpu"
        self._pipes: dict[str, Any] = {}

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides the bytes; empty before `load`."""
        return self._fingerprint

    # loading

    def load(self, *, device: str, quantization: str) -> None:
        """Reads the pipeline from safetensors alone, without the network."""
        hub.go_offline()
        diffusers = _library()
        self._device = devices.choose(device)
        plan = self._plan(quantization)
        self._require_room(plan)
        pipe = devices.run(lambda: self._read(diffusers, plan).to(self._device))
        pipe.set_progress_bar_config(disable=True)
        self._pipes = _pipes(diffusers, pipe)
        loras = self._load_loras(pipe)
        if plan.compiled:
            compiled.compile(next(getattr(pipe, n) for n in COMPONENTS if getattr(pipe, n, None)))
        self.caps = diffusers_offers.caps(self._pipes, self.options, self._possible())
        weights = [self.checkpoint.digest(), self.checkpoint.revision, loras]
        where = [devices.name(self._device), *_versions(plan)]
        self._fingerprint = _hash(["diffusers", plan.name, plan.compiled, *weights, *where])
        if not self._steady():
            log.warning(
                "%s: prompts change each other in a batch: it runs one at a time", self.name
            )
            self.caps = replace(self.caps, batch_shapes=(1,))

    def resolve(self, *, device: str, quantization: str) -> Resolved:
        self._device = devices.choose(device)
        plan = self._plan(quantization)
        return Resolved(self._device, plan.name, self._why(quantization))

    def _why(self, name: str) -> str:
        return quantization.why(name, self._where())

    def _plan(self, name: str) -> quantization.Plan:
        return quantization.plan(name, self._where(), self._what())

    def _possible(self) -> tuple[str, ...]:
        return quantization.possible(self._where(), self._what())

    def _where(self) -> quantization.Device:
        kind = self._device.partition(":")[0]
        return quantization.Device(kind, devices.capability(self._device))

    def _what(self) -> quantization.Model:
        share = linear_share(self.checkpoint.folder / self._component())
        return quantization.Model(DIFFUSERS, share, gguf=self._gguf() is not None)

    def _component(self) -> str:
        held = self.checkpoint.config("model_index.json")
        return next((name for name in COMPONENTS if name in held), COMPONENTS[0])

    def _gguf(self) -> Path | None:
        return next(iter(sorted(self.checkpoint.folder.rglob("*.gguf"))), None)

    def _require_room(self, plan: quantization.Plan) -> None:
        """The large component in the plan's format, the rest in the format of its numbers."""
        large = self.checkpoint.parameters(self._component())
        rest = self.checkpoint.parameters() - large
        held = large * plan.bytes
        if plan.backend == "gguf" and (file := self._gguf()) is not None:
            held = file.stat().st_size
        needed = int(held + rest * (4 if plan.dtype == "float32" else 2))
        devices.require_room(self.name, needed, self._device)

    def _read(self, diffusers: Any, plan: quantization.Plan) -> Any:
        import torch

        options: dict[str, Any] = {
            "dtype": getattr(torch, plan.dtype),
            "use_safetensors": True,
            "local_files_only": True,
        }
        if variant := _variant(self.checkpoint.folder / self._component()):
            options["variant"] = variant
        config = quantization.config(plan, DIFFUSERS)
        if plan.backend == "gguf":
            options["transformer"] = self._read_gguf(diffusers, config, options["dtype"])
        elif config is not None:
            options["quantization_config"] = diffusers.PipelineQuantizationConfig(
                quant_mapping={self._component(): config}
            )
        kind = diffusers.AutoPipelineForText2Image
        if _made_for_inpainting(self.checkpoint):
            kind = diffusers.AutoPipelineForInpainting
        try:
            return kind.from_pretrained(str(self.checkpoint.folder), **options)
        except (OSError, ValueError, KeyError) as error:
            raise errors.Error(f"{self.checkpoint.folder} cannot be loaded: {error}") from error

    def _read_gguf(self, diffusers: Any, config: Any, dtype: Any) -> Any:
        held = self.checkpoint.config("model_index.json")
        kind = getattr(diffusers, held["transformer"][1])
        return kind.from_single_file(
            str(self._gguf()),
            quantization_config=config,
            torch_dtype=dtype,
            config=str(self.checkpoint.folder),
            subfolder="transformer",
        )

    def _load_loras(self, pipe: Any) -> dict[str, str]:
        """Name → digest of each adapter, all loaded and none active."""
        digests: dict[str, str] = {}
        for name, place in self.options.loras.items():
            path = adapters.find(place)
            try:
                pipe.load_lora_weights(
                    str(path.parent), weight_name=path.name, adapter_name=name,
                    local_files_only=True, use_safetensors=True,
                )  # fmt: skip
            except (OSError, ValueError, KeyError, AttributeError) as error:
                raise errors.Error(f"adapter {name} ({path}) cannot be loaded: {error}") from error
            digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        if digests:
            pipe.disable_lora()
        return digests

    def _steady(self) -> bool:
        """Whether an image stays the same to the bit beside neighbours with other prompts and
        in another place."""
        if self.caps.max_batch == 1 or self.caps.tasks[0] != "text2image":
            return True
        shape = next(shape for shape in self.caps.batch_shapes if shape > 1)
        width, height = min(self.caps.sizes, key=lambda size: size[0] * size[1])
        steps = max(self.caps.steps[0], min(2, self.caps.steps[2]))
        first, *rest = [
            Item(k, k, 0, f"a red heart {k}", k, width, height, steps=steps,
                 guidance=self.caps.guidance[1])
            for k in range(shape)
        ]  # fmt: skip
        longer = [replace(one, prompt="a long tale of a cat and a dog " * 4) for one in rest]
        try:
            one, other = self.generate([first, *rest]), self.generate([*longer, first])
        except OutOfMemory:
            return True  # the engine finds what fits
        return bool((one[0] == other[-1]).all())

    def warmup(self, shapes: Sequence[int]) -> None:
        """One picture of the fewest steps: compilation is paid per bucket, when the engine
        measures it."""
        (width, height), steps = self.caps.sizes[0], self.caps.steps[0]
        item = Item(0, 0, 0, "red heart", 0, width, height, steps=max(1, steps))
        if self.caps.tasks[0] == "text2image":
            self.generate([replace(item, guidance=self.caps.guidance[1])] * min(shapes))

    # rendering

    def generate(self, items: Sequence[Item], inputs: Sequence[Input] = ()) -> Pixels:
        """Pictures uint8 [B, H, W, 3] of the items, in order."""
        if not self._pipes:
            raise errors.Error(f"{self.name} is not loaded")
        return devices.run(lambda: self._render(items, inputs))

    def _render(self, items: Sequence[Item], inputs: Sequence[Input]) -> Pixels:
        first = items[0]
        self._activate(first.lora)
        pipe = self._pipes[first.task]
        arguments = self._arguments(pipe, items) | diffusers_pixels.given(first, inputs)
        if first.task in ("img2img", "inpaint"):
            arguments["strength"] = first.strength
            # at least one step must be left of what the strength takes away
            least = math.ceil(1 / first.strength) if first.strength else 1
            arguments["num_inference_steps"] = max(first.steps, least)
        with devices.inference(self._device):
            made = pipe(**arguments)
        pixels = diffusers_pixels.bytes_of(made.images)
        if inputs and inputs[0].mask is not None:
            pixels = diffusers_pixels.keep_outside(pixels, inputs)
        flagged = getattr(made, "nsfw_content_detected", None)
        if flagged and any(flagged):
            found = {k: "the checkpoint's safety checker" for k, bad in enumerate(flagged) if bad}
            raise Rejected(found, pixels)
        return pixels

    def _arguments(self, pipe: Any, items: Sequence[Item]) -> dict[str, Any]:
        import torch

        first, known = items[0], diffusers_offers.signature(pipe)
        arguments: dict[str, Any] = {
            "prompt": [item.prompt for item in items],
            "generator": [
                torch.Generator("cpu").manual_seed(item.seed & devices.SEED_MASK) for item in items
            ],
            "num_inference_steps": first.steps,
            "output_type": "pt",
        }
        if "width" in known:
            arguments |= {"width": first.width, "height": first.height}
        if "guidance_scale" in known:
            arguments["guidance_scale"] = first.guidance
        if "negative_prompt" in self.caps.parameters and first.guidance > 1:
            # for all or none: whether one is given must not change the neighbours
            arguments["negative_prompt"] = [item.negative_prompt for item in items]
        if "callback_on_step_end" in known:
            arguments["callback_on_step_end"] = self._stepped
        return arguments

    def _stepped(self, pipe: Any, step: int, time: Any, held: dict[str, Any]) -> dict[str, Any]:
        if self.watch is not None:
            self.watch(step + 1, int(pipe.num_timesteps))
        return held

    def _activate(self, lora: str) -> None:
        if not self.options.loras:
            return
        pipe = next(iter(self._pipes.values()))
        if lora:
            pipe.enable_lora()
            pipe.set_adapters([lora])
        else:
            pipe.disable_lora()

    def room(self) -> float:
        return devices.room(self._device)

    def close(self) -> None:
        self._pipes = {}
        devices.free_cache()


def _library() -> Any:
    try:
        import diffusers
        import transformers
    except ImportError as missing:
        raise errors.Error("diffusers is not installed: pip install 'promptmill[hf]'") from missing
    library: Any  # the functions are not typed
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    return diffusers


def _pipes(diffusers: Any, pipe: Any) -> dict[str, Any]:
    """Task → pipeline, all around the same weights."""
    if "Inpaint" in type(pipe).__name__:
        return {"inpaint": pipe}
    found = {"text2image": pipe}
    for task, kind in (
        ("img2img", diffusers.AutoPipelineForImage2Image),
        ("inpaint", diffusers.AutoPipelineForInpainting),
    ):
        try:
            found[task] = kind.from_pipe(pipe)
        except (ValueError, TypeError) as reason:
            log.info("%s has no %s: %s", type(pipe).__name__, task, reason)
        else:
            found[task].set_progress_bar_config(disable=True)
    return found


def _made_for_inpainting(found: Checkpoint) -> bool:
    """Whether the network takes the mask and the masked picture as further channels."""
    return found.config("unet", "config.json").get("in_channels") == 9


def _variant(folder: Path) -> str:
    """The variant of the weights where only that is here: model.fp16.safetensors."""
    names = [path.name.split(".") for path in folder.glob("*.safetensors")]
    plain = any(len(parts) == 2 for parts in names)
    return "" if plain else next((parts[-2] for parts in names if len(parts) == 3), "")


def _versions(plan: quantization.Plan) -> list[str]:
    import diffusers
    import torch
    import transformers

    libraries = [torch.__version__, diffusers.__version__, transformers.__version__]
    return [*libraries, quantization.version(plan)]


def _hash(parts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
