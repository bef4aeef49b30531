"""The shipped form of a trained generator: folded float16 weights and the activation ranges
of int8, as safetensors and JSON. From these, int8 is rebuilt the same everywhere without
calibration data."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file
from torch import Tensor

from promptmill import errors
from worker.gan import data, quantize, train
from worker.gan.checkpoint import TENSORS
from worker.gan.networks import Generator, Widths, condition

NETWORK = "generator.safetensors"
FACTS = "generator.json"
FORMAT = 1
UNSEEN = 10**7  # the first step of batches that no training run reaches


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


def export(run: Path, dataset: data.Dataset, folder: Path, *, steps: int) -> Shipped:
    """A run's averaged generator as shipped weights: fold, observe, adapt in `steps`."""
    tensors = load_file(run / TENSORS)
    step = int(json.loads((run / "state.json").read_text())["step"])
    average = Generator().eval()
    start = "average."
    average.load_state_dict(
        {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
    )
    plain = quantize.fold(average)
    ranges = quantize.observe(plain, _conditions(dataset, range(4)))
    adapted = quantize.adapt(plain, ranges, _conditions(dataset, range(4, 4 + steps)))
    write(folder, adapted, ranges, step=step)
    return read(folder)


def _conditions(dataset: data.Dataset, numbers: range) -> list[Tensor]:
    """Conditions [32, 416] of drawn batches that training never saw."""
    drawn = (train.draw(dataset, train.Plan(jitter=0.1), UNSEEN + k) for k in numbers)
    return [condition(one.text, one.vendor, one.noise) for one in drawn]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise errors.Error(
            f"{path} cannot be read ({problem.strerror}): reinstall promptmill, or make the "
            "weights with python -m worker.gan.weights"
        ) from problem


def _damaged(path: Path) -> errors.Error:
    return errors.Error(
        f"{path} is damaged: reinstall promptmill, or make the weights with "
        "python -m worker.gan.weights"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Turn a training run into shipped weights.")
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--run", type=Path, default=Path("data/run"))
    parser.add_argument("--out", type=Path, default=Path("worker/weights/emoji-gan"))
    parser.add_argument("--adapt", type=int, default=250, help="steps of adapting to int8")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    shipped = export(given.run, data.load(given.data), given.out, steps=given.adapt)
    print(f"{given.out}: digest {shipped.digest}")


if __name__ == "__main__":
    main()
