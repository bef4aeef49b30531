"""`promptmill models probe`: loads a generator here and measures each of its batch shapes,
without a farm. `models pull` makes sure that its weights are here, `models add` asks what it
can do."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from promptmill import models
from promptmill.jobs import Item
from worker.generators import adapters, hub, quantization, registry
from worker.generators.base import Generator, OutOfMemory, Resolved

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


def resolved(name: str, *, device: str, quantization: str, options: str = "") -> Resolved:
    """What the settings come to here. Raises `errors.ModelNotFound`, and
    `errors.UnsupportedParameter` with the reason for what cannot run."""
    return registry.create(name, options).resolve(device=device, quantization=quantization)


@dataclass(frozen=True, slots=True)
class Format:
    """One quantization at its fastest batch shape; refused: why it cannot be, else empty."""

    quantization: str
    batch: int = 0
    images_per_second: float = 0.0
    memory_bytes: int = 0
    refused: str = ""


def probe_formats(name: str) -> Iterator[Format]:
    """Each number format in a process of its own, with this one's settings beside: memory
    that one held would count for the next."""
    own = registry.create(name).caps.quantizations if name in registry.FACTORIES else ()
    for format in dict.fromkeys((*quantization.NAMES, *own)):
        command = [sys.executable, "-m", "promptmill", "models", "probe", name, "--json"]
        done = subprocess.run(
            command,
            env={**os.environ, "PROMPTMILL_QUANTIZATION": format},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            told = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
            yield Format(format, refused=told.removeprefix("promptmill: "))
            continue
        shapes = [Shape(**json.loads(line)) for line in done.stdout.splitlines()]
        best = max(shapes, key=lambda shape: shape.images_per_second)
        yield Format(format, best.batch, best.images_per_second, best.memory_bytes)


def pull(name: str, *, device: str, quantization: str, options: str = "") -> str:
    """Makes sure of the weights; what they are, in words. Those on the hub are downloaded
    and looked at, others are loaded as a worker would. Raises `errors.Error` naming what is
    missing, damaged or refused."""
    if name.startswith(models.HUB):
        folder = hub.pull(name)
        if adapters.alone(folder):
            return f"commit {folder.name}, the adapter {adapters.find(str(folder)).name}"
        registry.require(name)  # it need not make pictures: PROMPTMILL_IMAGE_CHECK names others
        return f"commit {folder.name}"
    generator = registry.create(name, options)
    generator.load(device=device, quantization=quantization)
    fingerprint = generator.fingerprint
    generator.close()
    return f"fingerprint {fingerprint}"


def describe(name: str, *, device: str, quantization: str, options: str = "") -> models.Model:
    """The model as a worker here would register it, but for the fingerprint: that is the
    serving worker's, of its device and libraries. Raises what `pull` raises."""
    generator = registry.create(name, options)
    generator.load(device=device, quantization=quantization)
    generator.close()
    return models.Model(generator.name, generator.caps, fingerprint="")


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
    guidance = generator.caps.guidance[1]
    prompt = f"a red heart, number {number}"
    return Item(number, number, 0, prompt, number, width, height, steps=steps, guidance=guidance)


def _memory() -> int:
    """Of the GPU, where there is one; else of the process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
