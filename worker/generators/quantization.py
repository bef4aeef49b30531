"""One setting, PROMPTMILL_QUANTIZATION, for every checkpoint: which number format and which
library it means on this device, and why not where it would not help. Pure but for `config`,
which builds what the libraries take."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

from promptmill import errors
from worker.generators.checkpoint import TRANSFORMERS

NAMES = ("none", "bf16", "int8", "fp8", "nf4", "gguf")
BYTES = {"none": 4.0, "bf16": 2.0, "int8": 1.1, "fp8": 1.1, "nf4": 0.6, "gguf": 1.1}
LINEAR_LEAST = 0.5  # share of matrices below which quantizing linear layers does not pay
FP8_SINCE, BF16_SINCE = (8, 9), (8, 0)  # compute capability


@dataclass(frozen=True, slots=True)
class Device:
    """Where a checkpoint will run. capability: of a GPU. bf16: whether a CPU multiplies bfloat16
    itself."""

    kind: str  # cpu | cuda
    capability: tuple[int, int] = (0, 0)
    bf16: bool = True


@dataclass(frozen=True, slots=True)
class Model:
    """What is to be quantized. kind: the library that loads it. linear: share of its large
    component's numbers in matrices. gguf: such a file is in the checkpoint."""

    kind: str  # diffusers | transformers
    linear: float = 1.0
    gguf: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What a setting comes to. dtype: of the numbers that are computed with. backend: the
    library that holds the weights smaller; empty for none. compiled: what is multiplied with
    them is made smaller, too, which is slower unless it is compiled."""

    name: str
    dtype: str
    backend: str = ""
    compiled: bool = False

    @property
    def bytes(self) -> float:
        """Bytes that a parameter of the large component takes."""
        return BYTES[self.name]

    @property
    def format(self) -> str:
        """What of it decides bytes of pictures, for a fingerprint."""
        usual = self.dtype == _PLANS[self.name].dtype
        return self.name if usual else f"{self.name} in {self.dtype}"


def plan(name: str, device: Device, model: Model) -> Plan:
    """`auto` is bf16 on a GPU that has it, none elsewhere. Raises
    `errors.UnsupportedParameter` with the reason where a format cannot run or would make
    nothing better."""
    if name == "auto":
        name = "bf16" if device.kind == "cuda" and device.capability >= BF16_SINCE else "none"
    if name not in NAMES:
        raise errors.UnsupportedParameter(
            f"PROMPTMILL_QUANTIZATION={name!r} must be auto or one of {', '.join(NAMES)}"
        )
    reason = _refusal(name, device, model)
    if reason:
        raise errors.UnsupportedParameter(f"PROMPTMILL_QUANTIZATION={name} is refused: {reason}")
    found = _PLANS[name]
    return found if device.bf16 or not found.backend else replace(found, dtype="float32")


def why(name: str, device: Device) -> str:
    """What to say of a plan for the setting `name` that was not refused."""
    if name == "bf16" and not device.bf16:
        return "as it is set, but this processor computes bfloat16 in software: none is far faster"
    if name != "auto":
        return "as it is set"
    if device.kind != "cuda":
        return "auto: on a CPU, float32 as the checkpoint was made"
    if device.capability >= BF16_SINCE:
        return "auto: this GPU computes bfloat16 at full speed"
    return "auto: this GPU computes bfloat16 in software only"


_PLANS = {
    "none": Plan("none", "float32"),
    "bf16": Plan("bf16", "bfloat16"),
    "int8": Plan("int8", "bfloat16", "torchao"),
    "fp8": Plan("fp8", "bfloat16", "torchao", compiled=True),
    "nf4": Plan("nf4", "bfloat16", "bitsandbytes"),
    "gguf": Plan("gguf", "bfloat16", "gguf"),
}


def possible(device: Device, model: Model) -> tuple[str, ...]:
    """The settings that run here."""
    return tuple(name for name in NAMES if not _refusal(name, device, model))


def _refusal(name: str, device: Device, model: Model) -> str:
    if name in ("int8", "fp8", "nf4") and model.linear < LINEAR_LEAST:
        return (
            f"only {model.linear:.0%} of the weights are in linear layers, the rest are "
            "convolutions, which it does not touch: use bf16"
        )
    rule = {
        "int8": _int8,
        "fp8": _fp8,
        "nf4": _nf4,
        "gguf": _gguf,
        "bf16": _bf16,
    }.get(name)
    return rule(device, model) if rule else ""


def _bf16(device: Device, model: Model) -> str:
    if device.kind == "cuda" and device.capability < BF16_SINCE:
        return "this GPU computes bfloat16 in software"
    return ""


_FEW = (
    "drawing token by token multiplies too few rows at once for 8-bit products to pay: use "
    "bf16, or nf4 to save memory"
)


def _int8(device: Device, model: Model) -> str:
    if device.kind == "cpu":
        return ""
    if model.kind == TRANSFORMERS:
        return _FEW
    return (
        "on a GPU a second process drew a batch of 1 in other bytes (a tiny FLUX, NVIDIA H200, "
        f"torch 2.11, torchao 0.18): {_instead(device)}"
    )


def _instead(device: Device) -> str:
    """What a GPU has in place of a format in eight bits."""
    if device.capability >= FP8_SINCE:
        return "use fp8"
    plain = "bf16" if device.capability >= BF16_SINCE else "none"
    return f"use {plain}, or nf4 to save memory"


def _fp8(device: Device, model: Model) -> str:
    if device.kind == "cpu":
        return "a CPU has no 8-bit floats: it runs at a fifth of the speed; use bf16"
    if device.capability < FP8_SINCE:
        return f"this GPU has no 8-bit floats (compute capability 8.9 has): {_instead(device)}"
    if model.kind == TRANSFORMERS:
        return _FEW
    return ""


def _nf4(device: Device, model: Model) -> str:
    if device.kind == "cpu" and model.kind == "diffusers":
        return "diffusers needs a GPU for it; it saves memory, not time"
    return ""


def _gguf(device: Device, model: Model) -> str:
    if model.kind != "diffusers":
        return "transformers reads no GGUF of image generators"
    if not model.gguf:
        return "the checkpoint has no .gguf file of its transformer"
    return ""


def config(plan: Plan, kind: str, kept: Sequence[str] = ()) -> Any:
    """What `from_pretrained` of the library `kind` takes as `quantization_config` of the
    large component; None for none. kept: parts of it whose numbers stay, by the names of
    their modules. Raises `errors.Error` naming the extra that is missing."""
    try:
        return _config(plan, kind, list(kept) or None)
    except ImportError as missing:
        raise errors.Error(
            f"PROMPTMILL_QUANTIZATION={plan.name} needs {plan.backend}: "
            "pip install 'promptmill[quantized]'"
        ) from missing


def version(plan: Plan) -> str:
    """The library that holds the weights, as a fingerprint must know it."""
    return f"{plan.backend} {metadata.version(plan.backend)}" if plan.backend else ""


def _config(plan: Plan, kind: str, kept: list[str] | None) -> Any:
    import torch

    dtype = getattr(torch, plan.dtype)
    if plan.backend == "torchao":
        from torchao import quantization as torchao

        return _class(kind, "TorchAoConfig")(_torchao(torchao, plan), modules_to_not_convert=kept)
    if plan.backend == "bitsandbytes":
        import bitsandbytes  # noqa: F401  # the config checks for it only later

        return _class(kind, "BitsAndBytesConfig")(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=kept,  # read for four bits, too
        )
    if plan.backend == "gguf":
        import gguf  # noqa: F401

        return _class(kind, "GGUFQuantizationConfig")(compute_dtype=dtype)
    return None


def _torchao(torchao: Any, plan: Plan) -> Any:
    """Rows of their own scales, so that no image of a batch changes another's; none of the
    compiler's settings that try what is faster, since they change bits."""
    if plan.name == "fp8":
        return torchao.Float8DynamicActivationFloat8WeightConfig(
            granularity=torchao.PerRow(), set_inductor_config=False
        )
    return torchao.Int8WeightOnlyConfig(set_inductor_config=False)


def _class(kind: str, name: str) -> Any:
    return getattr(importlib.import_module(kind), name)
