"""A pipeline of diffusers read from a checkpoint on this machine, in the format of a plan: its
large component, its tasks, its adapters. Nothing is imported before a call."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from promptmill import errors
from worker.generators import adapters, quantization, reading
from worker.generators.checkpoint import DIFFUSERS, Checkpoint, linear_share

log = logging.getLogger(__name__)

COMPONENTS = ("transformer", "unet")  # the large part of a pipeline, by its attribute


def component(found: Checkpoint) -> str:
    """Which part of the pipeline is the large one."""
    held = found.config("model_index.json")
    return next((name for name in COMPONENTS if name in held), COMPONENTS[0])


def gguf(found: Checkpoint) -> Path | None:
    """The file of the transformer in smaller numbers, if it is there."""
    return next((path for path in found.files() if path.suffix == ".gguf"), None)


def quantizable(found: Checkpoint) -> quantization.Model:
    share = linear_share(found.folder / component(found))
    return quantization.Model(DIFFUSERS, share, gguf=gguf(found) is not None)


def size(found: Checkpoint, plan: quantization.Plan) -> int:
    """Bytes of the weights: the large component in the plan's format, the rest in the format
    of its numbers."""
    large = found.parameters(component(found))
    rest = found.parameters() - large
    held = large * plan.bytes
    if plan.backend == "gguf" and (file := gguf(found)) is not None:
        held = file.stat().st_size
    return int(held + rest * (4 if plan.dtype == "float32" else 2))


def read(found: Checkpoint, plan: quantization.Plan) -> Any:
    """The pipeline, from safetensors alone, without the network. Raises `errors.Error` for
    what cannot be loaded."""
    import torch

    diffusers = _library()
    options: dict[str, Any] = {
        "dtype": getattr(torch, plan.dtype),
        "use_safetensors": True,
        "local_files_only": True,
        "trust_remote_code": False,
    }
    if variant := _variant(found.folder / component(found)):
        options["variant"] = variant
    config = quantization.config(plan, DIFFUSERS)
    if config is not None and plan.backend != "gguf":
        options["quantization_config"] = diffusers.PipelineQuantizationConfig(
            quant_mapping={component(found): config}
        )
    kind = diffusers.AutoPipelineForText2Image
    if _made_for_inpainting(found):
        kind = diffusers.AutoPipelineForInpainting
    with reading.told(found.folder):
        parts = _read_encoders(found, options)
        if plan.backend == "gguf":
            parts["transformer"] = _read_gguf(found, config, options["dtype"])
        pipe = kind.from_pretrained(str(found.folder), **parts, **options)
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            missing = [key for key, value in part.named_parameters() if value.is_meta]
            reading.require_all(found.folder / name, missing)
    return pipe


def _read_encoders(found: Checkpoint, options: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a pipeline that transformers reads. It fills what is missing with random
    numbers, where diffusers leaves it empty, and a pipeline does not pass on that it did."""
    made = {}
    for name, entry in found.config("model_index.json").items():
        folder = found.folder / name
        if not folder.is_dir() or (kind := _encoder(entry)) is None:
            continue
        variant = options.get("variant")
        made[name], told = kind.from_pretrained(
            folder,
            dtype=options["dtype"],
            variant=variant if any(folder.glob(f"*.{variant}*")) else None,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        reading.require_all(folder, told["missing_keys"])
    return made


def _encoder(entry: Any) -> Any:
    """The class that an entry [library, class] of model_index.json names; None unless it is a
    network of transformers."""
    import transformers
    from diffusers import pipelines

    library, name = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
    module = transformers if library == "transformers" else getattr(pipelines, str(library), None)
    kind = getattr(module, str(name), None)
    if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel):
        return kind
    return None


def _read_gguf(found: Checkpoint, config: Any, dtype: Any) -> Any:
    held = found.config("model_index.json")
    kind = getattr(_library(), held["transformer"][1])
    return kind.from_single_file(
        str(gguf(found)),
        quantization_config=config,
        torch_dtype=dtype,
        config=str(found.folder),
        subfolder="transformer",
    )


def tasks(pipe: Any) -> dict[str, Any]:
    """Task → pipeline, all around the same weights."""
    diffusers = _library()
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


def load_loras(pipe: Any, loras: Mapping[str, str]) -> dict[str, str]:
    """Name → digest of each adapter, all loaded and none active; loras: name → place. Raises
    `errors.ModelInvalid` naming one that cannot be loaded or lacks a tensor."""
    digests: dict[str, str] = {}
    for name, place in loras.items():
        path = adapters.find(place)
        what = f"adapter {name} ({path})"
        with reading.told(what), _unfilled_as_nan():
            pipe.load_lora_weights(
                str(path.parent), weight_name=path.name, adapter_name=name,
                local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False,
            )  # fmt: skip
        held = _adapter(pipe, name)
        if not held:
            raise errors.ModelInvalid(f"{what} is one of another model")
        reading.require_all(what, [key for key, value in held.items() if value.isnan().any()])
        digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    if digests:
        pipe.disable_lora()
    return digests


def _adapter(pipe: Any, name: str) -> dict[str, Any]:
    """The tensors of an adapter in the pipeline, by their place."""
    import torch

    return {
        f"{part}.{key}": value
        for part, network in pipe.components.items()
        if isinstance(network, torch.nn.Module)
        for key, value in network.named_parameters()
        if "lora_" in key and f".{name}." in key
    }


@contextmanager
def _unfilled_as_nan() -> Iterator[None]:
    """Layers that are made within it begin as NaN: what no file filled is told by it. They would
    begin by chance, with other numbers at each load under one fingerprint."""
    from torch.nn import init

    names = ("kaiming_uniform_", "normal_", "zeros_")
    usual = {name: getattr(init, name) for name in names}
    for name in names:
        setattr(init, name, lambda tensor, *rest, **more: tensor.data.fill_(float("nan")))
    try:
        yield
    finally:
        for name, function in usual.items():
            setattr(init, name, function)


def large(pipe: Any) -> Any:
    """The large component of a pipeline that was read."""
    return next(getattr(pipe, name) for name in COMPONENTS if getattr(pipe, name, None))


def networks(pipe: Any) -> list[Any]:
    """All networks of a pipeline that was read."""
    import torch

    return [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]


def versions(plan: quantization.Plan) -> list[str]:
    """Of the libraries that decide the bytes."""
    import diffusers
    import torch
    import transformers

    libraries = [torch.__version__, diffusers.__version__, transformers.__version__]
    return [*libraries, quantization.version(plan)]


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


def _made_for_inpainting(found: Checkpoint) -> bool:
    """Whether the network takes the mask and the masked picture as further channels."""
    return found.config("unet", "config.json").get("in_channels") == 9


def _variant(folder: Path) -> str:
    """The variant of the weights where only that is here: model.fp16.safetensors, or its parts
    model.fp16-00001-of-00002.safetensors."""
    names = [path.name.split(".") for path in folder.glob("*.safetensors")]
    plain = any(len(parts) == 2 for parts in names)
    found = (parts[-2].partition("-")[0] for parts in names if len(parts) == 3)
    return "" if plain else next(found, "")
