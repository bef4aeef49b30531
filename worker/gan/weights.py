"""The shipped form of a trained generator: folded weights, in float16 or as the codes of int8,
and the activation ranges, as safetensors and JSON. From these, int8 is rebuilt the same
everywhere without calibration data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from worker.gan import quantize, weightfile
from worker.gan.networks import Generator, Widths
from worker.gan.weightfile import CODES, FACTS, FORMAT, NETWORK, SCALE

FILES = (NETWORK, FACTS)


@dataclass(frozen=True, slots=True)
class Shipped:
    """A folded generator in float32, its activation ranges, the training step it is of and the
    digest of both files."""

    generator: Generator
    ranges: dict[str, tuple[float, float]]
    digest: str
    step: int = 0


def read(folder: Path) -> Shipped:
    """Reads and checks both files; raises `errors.Error` naming the one at fault."""
    found = weightfile.read(folder)
    try:
        generator = Generator(Widths(**found.widths), normed=False).eval().requires_grad_(False)
    except TypeError as problem:
        raise weightfile.damaged(folder / FACTS) from problem
    try:
        generator.load_state_dict({k: torch.from_numpy(v) for k, v in found.tensors.items()})
    except RuntimeError as problem:
        raise weightfile.damaged(folder / NETWORK) from problem
    return Shipped(generator, found.ranges, found.digest, found.step)


def write(
    folder: Path, generator: Generator, ranges: quantize.Ranges, *, step: int, coded: bool = False
) -> None:
    """Saves a folded generator, its weights rounded to float16, or, at half the size, to
    the 8-bit codes that int8 makes of them."""
    folder.mkdir(parents=True, exist_ok=True)
    state = generator.state_dict()
    tensors = (
        coded_tensors(state) if coded else {name: value.half() for name, value in state.items()}
    )
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / NETWORK)
    facts = {
        "format": FORMAT,
        "step": step,
        "widths": asdict(generator.widths),
        "sha256": hashlib.sha256((folder / NETWORK).read_bytes()).hexdigest(),
        "ranges": {stage: list(ends) for stage, ends in ranges.items()},
    }
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n")


def coded_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
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
