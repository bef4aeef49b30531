"""Which batch shape a bucket runs best: found by running the shapes, smallest first, until
more images at once bring nothing or memory is short. Knows no queue and no database."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from promptmill.jobs import Item
from promptmill.models import Caps
from worker.generators.base import Generator, Input, OutOfMemory, Roomy

log = logging.getLogger(__name__)

RISE = 1.03  # a larger batch must bring so many times the images per second
SPARE = 0.1  # of the device's memory stays free
STEPS = 4  # that a measured image takes at most: each is like the one before


@dataclass(frozen=True, slots=True)
class Found:
    """best: the batch shape to run; 0 when not even one image fits. rates: images per second
    by shape, as far as they were tried; of images of at most `STEPS` steps, so that those of a
    job with more come slower."""

    best: int
    rates: Mapping[int, float]


def find(
    generator: Generator,
    item: Item,
    given: Input | None,
    *,
    most: int,
    progress: Callable[[], None] = lambda: None,
) -> Found:
    """Runs copies of `item`, of few steps, at the shapes up to `most`. Each runs once
    unmeasured, which is where a compiled generator compiles it. A shape in which the copies
    come out otherwise is left out: there an image would depend on its place. Raises what the
    item makes the generator raise."""
    item = replace(item, steps=_steps(generator.caps, item))
    rates: dict[int, float] = {}
    best = 0
    for shape in (shape for shape in generator.caps.batch_shapes if shape <= most):
        try:
            rate, alike = _run(
                generator, [item] * shape, [given] * shape if given else [], progress
            )
        except OutOfMemory:
            break
        if not alike:
            log.warning("%s: copies of a picture differ in batches of %d", generator.name, shape)
            continue
        if best and isinstance(generator, Roomy) and generator.room() < SPARE:
            break
        rates[shape] = round(rate, 3)
        if best and rate < rates[best] * RISE:
            break
        best = shape
    return Found(best, rates)


def _steps(caps: Caps, item: Item) -> int:
    return max(caps.steps[0], min(item.steps, STEPS)) if "steps" in caps.parameters else item.steps


def _run(
    generator: Generator,
    items: Sequence[Item],
    inputs: Sequence[Input],
    progress: Callable[[], None],
) -> tuple[float, bool]:
    """(images per second, whether all pictures are the same) of copies of one item."""
    if isinstance(generator, Roomy):
        generator.room()  # from here on
    seconds, alike = 0.0, True
    for _ in range(2):
        begun = time.perf_counter()
        made = generator.generate(items, inputs) if inputs else generator.generate(items)
        seconds = time.perf_counter() - begun
        alike = alike and bool((made == made[:1]).all())
        progress()
    return len(items) / seconds, alike
