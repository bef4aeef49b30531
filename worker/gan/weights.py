"""The shipped form of a trained generator: folded weights, in float16 or as the codes of int8,
and the activation ranges, as safetensors and JSON. From these, int8 is rebuilt the same
everywhere without calibration data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from promptmill import errors
from worker.gan import quantize
from worker.gan.networks import Generator, Widths

NETWORK = "generator.safetensors"
FACTS = "generator.json"
FORMAT = 1
SCALE = ".scale"
CODES = 127  # greatest code of a weight


@dataclass(frozen=True, slots=True)
class Shipped:
    """A folded generator in float32, its activation ranges and the digest of both files."""

    generator: Generator
    ranges: dict[str, tuple[float, float]]
    digest: str


def read(folder: Path) -> Shipped:
    """Reads and checks both files; raises `errors.Error` naming the one at fault."""
    facts_path, network_path = folder / FACTS, folder / NETWORK
    facts_bytes = _bytes(facts_path)
    network_bytes = _bytes(network_path)
    try:
        facts: dict[str, Any] = json.loads(facts_bytes)
        if facts["format"] != FORMAT:
            raise errors.Error(f"{facts_path} has format {facts['format']}, not {FORMAT}: update")
        widths, expected = Widths(**facts["widths"]), facts["sha256"]
        ranges = {stage: (float(a), float(b)) for stage, (a, b) in facts["ranges"].items()}
    except (ValueError, KeyError, TypeError) as problem:
        raise _damaged(facts_path) from problem
    if hashlib.sha256(network_bytes).hexdigest() != expected:
        raise _damaged(network_path)
    generator = Generator(widths, normed=False).eval().requires_grad_(False)
    try:
        generator.load_state_dict(_decoded(load(network_bytes)))
    except (SafetensorError, KeyError, RuntimeError) as problem:
        raise _damaged(network_path) from problem
    return Shipped(generator, ranges, hashlib.sha256(facts_bytes).hexdigest())


def step_of(folder: Path) -> int:
    """The training step that shipped weights are of."""
    return int(json.loads(_bytes(folder / FACTS))["step"])


def write(
    folder: Path, generator: Generator, ranges: quantize.Ranges, *, step: int, coded: bool = False
) -> None:
    """Saves a folded generator, its weights rounded to float16, or, at half the size, to
    the 8-bit codes that int8 makes of them."""
    folder.mkdir(parents=True, exist_ok=True)
    state = generator.state_dict()
    tensors = _coded(state) if coded else {name: value.half() for name, value in state.items()}
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / NETWORK)
    facts = {
        "format": FORMAT,
        "step": step,
        "widths": asdict(generator.widths),
        "sha256": hashlib.sha256((folder / NETWORK).read_bytes()).hexdigest(),
        "ranges": {stage: list(ends) for stage, ends in ranges.items()},
    }
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n")


def _coded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One symmetric scale for each output channel of a weight; biases stay as they are."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if not name.endswith("weight"):
            found[name] = value
            continue
        shape = (-1, *[1] * (value.dim() - 1))
        scale = (value.flatten(1).abs().amax(1) / CODES).clamp_min(1e-8)
        found[name] = (value / scale.reshape(shape)).round().to(torch.int8)
        found[name + SCALE] = scale
    return found


def _decoded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in float32 of either form."""
    found = {name: value.float() for name, value in tensors.items() if not name.endswith(SCALE)}
    for name, value in found.items():
        if tensors[name].dtype == torch.int8:
            shape = (-1, *[1] * (value.dim() - 1))
            found[name] = value * tensors[name + SCALE].reshape(shape)
    return found


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise errors.Error(
            f"{path} cannot be read ({problem.strerror}): reinstall promptmill, or make the "
            "weights with python -m worker.gan.export"
        ) from problem


def _damaged(path: Path) -> errors.Error:
    return errors.Error(
        f"{path} is damaged: reinstall promptmill, or make the weights with "
        "python -m worker.gan.export"
    )
