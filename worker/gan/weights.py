"""The shipped form of a trained generator: folded float16 weights and the activation ranges
of int8, as safetensors and JSON. From these, int8 is rebuilt the same everywhere without
calibration data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save_file

from promptmill import errors
from worker.gan import quantize
from worker.gan.networks import Generator, Widths

NETWORK = "generator.safetensors"
FACTS = "generator.json"
FORMAT = 1


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
        tensors = {name: value.float() for name, value in load(network_bytes).items()}
        generator.load_state_dict(tensors)
    except (SafetensorError, RuntimeError) as problem:
        raise _damaged(network_path) from problem
    return Shipped(generator, ranges, hashlib.sha256(facts_bytes).hexdigest())


def write(folder: Path, generator: Generator, ranges: quantize.Ranges, *, step: int) -> None:
    """Saves a folded generator, its weights rounded to float16."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.half().contiguous() for name, value in generator.state_dict().items()}
    save_file(tensors, folder / NETWORK)
    facts = {
        "format": FORMAT,
        "step": step,
        "widths": asdict(generator.widths),
        "sha256": hashlib.sha256((folder / NETWORK).read_bytes()).hexdigest(),
        "ranges": {stage: list(ends) for stage, ends in ranges.items()},
    }
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n")


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
