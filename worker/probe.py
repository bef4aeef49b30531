"""`promptmill models probe`: loads a generator here and measures each of its batch shapes,
without a farm. `models pull` makes sure that its weights are here."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from promptmill.jobs import Item
from worker.generators import registry
from worker.generators.base import Generator, OutOfMemory

ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Shape:
    """One batch shape. images_per_second: median of a few batches of prompts never seen
    before; 0 when they do not fit. memory_bytes: the process's largest so far."""

    batch: int
    images_per_second: float
    memory_bytes: int


def probe(name: str, *, device: str, quantization: str, options: str = "") -> Iterator[Shape]:
    """Raises `errors.ModelNotFound`, and what `load` raises."""
    generator = registry.create(name, options)
    generator.load(device=device, quantization=quantization)
    generator.warmup(generator.caps.batch_shapes)
    try:
        for batch in generator.caps.batch_shapes:
            yield Shape(batch, _rate(generator, batch), _memory())
    finally:
        generator.close()


def pull(name: str, *, device: str, quantization: str, options: str = "") -> str:
    """Loads the weights as a worker would; the generator's fingerprint. Raises
    `errors.Error` naming the file that is missing or damaged."""
    generator = registry.create(name, options)
    generator.load(device=device, quantization=quantization)
    fingerprint = generator.fingerprint
    generator.close()
    return fingerprint


def _rate(generator: Generator, batch: int) -> float:
    rates = []
    for number in range(ROUNDS):
        items = [_item(generator, batch * 1000 + number * batch + k) for k in range(batch)]
        begun = time.perf_counter()
        try:
            generator.generate(items)
        except OutOfMemory:
            return 0.0
        rates.append(batch / (time.perf_counter() - begun))
    return statistics.median(rates)


def _item(generator: Generator, number: int) -> Item:
    (width, height), steps = generator.caps.sizes[0], generator.caps.steps[1]
    prompt = f"a red heart, number {number}"
    return Item(number, number, 0, prompt, number, width, height, steps=steps)


def _memory() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
