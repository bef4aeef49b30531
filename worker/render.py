"""Running a generator on any number of items: padding to batch shapes, halving on out of
memory, bisecting to the guilty item. Knows nothing of leases, stores or databases."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeGuard, cast

import numpy as np

from promptmill.jobs import Item
from worker import rerolls
from worker.generators.base import (
    BROKEN,
    Generator,
    Input,
    OutOfMemory,
    Preparing,
    Rejected,
    Scorer,
    Stepwise,
)
from worker.outcomes import REJECTED, Fault, Outcome, Picture, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)


class Abandoned(Exception):
    """Nobody wants what is being rendered any more."""


PATIENCE = 0.1  # seconds for which others hold back for somebody who goes first
HAND_OVER = 0.0001  # seconds for which the processor is left to whoever comes next


class Turn:
    """The generator's lock: one holder at a time, whoever waits with `first` goes first, and
    others hold back for a moment while somebody is `ahead`.

    A holder that computed elsewhere, or mostly waited, leaves the processor to the next one,
    which else may begin milliseconds later, once the holder's core or the interpreter is free,
    while the device stands still. elsewhere: the generator computes on a device of its own."""

    def __init__(self, *, elsewhere: bool = False) -> None:
        self._elsewhere = elsewhere
        self._changed = threading.Condition()
        self._taken = False
        self._waiting = 0
        self._waiting_first = 0
        self._ahead = 0
        self._asked_first = -math.inf  # when somebody last did, by `time.monotonic`

    def asked_first(self, within: float) -> bool:
        """Somebody asked to go first in the last `within` seconds."""
        with self._changed:
            return time.monotonic() - self._asked_first < within

    @property
    def awaited(self) -> bool:
        """Somebody waits who asked to go first."""
        with self._changed:
            return self._waiting_first > 0

    @contextmanager
    def ahead(self) -> Iterator[None]:
        """From before a turn that will be taken first until after what follows it: meanwhile
        the processor is left to whoever is inside, by everybody for at most `PATIENCE`."""
        with self._changed:
            self._ahead += 1
            self._asked_first = time.monotonic()
        try:
            yield
        finally:
            with self._changed:
                self._ahead -= 1
                self._changed.notify_all()

    @contextmanager
    def take(self, *, first: bool = False) -> Iterator[None]:
        with self._changed:
            if first:
                self._waiting_first += 1
                self._asked_first = time.monotonic()
            elif self._ahead:
                self._changed.wait_for(lambda: not self._ahead, PATIENCE)
            self._waiting += 1
            self._changed.wait_for(lambda: not self._taken and (first or not self._waiting_first))
            self._waiting -= 1
            self._waiting_first -= first
            self._taken = True
        begun, computed = time.monotonic(), time.thread_time()
        try:
            yield
        finally:
            spent = time.thread_time() - computed
            leaves = self._elsewhere or spent < (time.monotonic() - begun) / 4
            with self._changed:
                self._taken = False
                leaves = leaves and self._waiting > 0
                self._changed.notify_all()
            if leaves:
                time.sleep(HAND_OVER)


class Renderer:
    """One loaded generator and the largest batch that has fitted, by bucket.

    fingerprint: of the generator and whatever else decides the bytes of its files.
    lower: told (bucket, cap) when memory ran out and the cap was halved.
    """

    def __init__(
        self,
        generator: Generator,
        *,
        fingerprint: str | None = None,
        caps: Mapping[str, int] | None = None,
        lower: Callable[[str, int], None] = lambda bucket, cap: None,
    ) -> None:
        self.generator = generator
        self.caps = dict(caps or {})
        self.step = (0, 0)  # of the forward pass that runs: (done, in all)
        self._base = fingerprint or generator.fingerprint
        self._lower = lower

    def limit(self, bucket: str, item: Item | None = None) -> int:
        """The largest batch to try in this bucket; of items like this one."""
        caps = self.generator.caps
        most = caps.max_batch if item is None else caps.most_of(item)
        return min(self.caps.get(bucket, most), most)

    def render(
        self,
        bucket: str,
        items: Sequence[Item],
        inputs: Sequence[Input | None] | None = None,
        *,
        progress: Callable[[], None] = lambda: None,
    ) -> list[Outcome]:
        """One outcome per item, in order, the best of those that it asks for; only these have
        a score yet (`scored`). inputs: what
        each item starts from. progress: told after every forward pass, and after every step
        of a generator that goes by steps; it may raise `Abandoned`."""
        self.tell(progress)
        tasks = list(zip(items, inputs or [None] * len(items), strict=True))
        return rerolls.best(lambda some: self._render(bucket, some, progress), tasks)

    def _render(
        self, bucket: str, tasks: Sequence[Task], progress: Callable[[], None]
    ) -> list[Outcome]:
        """A failing batch is split until the guilty item is alone, so that an innocent one
        is always rendered."""
        outcomes: list[Outcome] = []
        todo = [list(tasks)]
        again: Task | None = None  # it did not fit alone, and the memory has been emptied since
        while todo:
            chunk = todo.pop(0)
            limit = self.limit(bucket, chunk[0][0])
            if len(chunk) > limit:
                todo[:0] = [chunk[:limit], chunk[limit:]]
                continue
            try:
                outcomes += self._forward(chunk, limit)
            except OutOfMemory as error:
                if limit == 1 and again is chunk[0]:
                    outcomes.append(Fault("out_of_memory", str(error)))
                    continue
                if limit == 1:
                    again = chunk[0]
                else:
                    self._halve(bucket, min(limit, self._shape(len(chunk), limit)))
                todo.insert(0, chunk)
            except Abandoned:
                raise
            except Exception as error:
                if len(chunk) == 1:
                    outcomes.append(Fault("render_failed", f"{type(error).__name__}: {error}"))
                else:
                    middle = len(chunk) // 2
                    todo[:0] = [chunk[:middle], chunk[middle:]]
            finally:
                progress()
        return outcomes

    def prepare(self, items: Sequence[Item]) -> None:
        """What the generator can do of these items before its turn. In nobody's turn; a failure is
        left to `render`, which finds out whose it is."""
        if isinstance(self.generator, Preparing) and items:
            try:
                self.generator.prepare(items)
            except Exception as error:
                log.debug("not prepared: %s", error)

    def tell(self, progress: Callable[[], None]) -> None:
        """Has the generator tell its steps, from the first on."""
        self.step = (0, 0)
        if not isinstance(self.generator, Stepwise):
            return

        def watch(done: int, total: int) -> None:
            self.step = (done, total)
            progress()

        self.generator.watch = watch

    def _shape(self, count: int, limit: int) -> int:
        """A generator that is not batch-invariant always runs the largest shape that
        fits: a changed shape would change its bytes."""
        caps = self.generator.caps
        return min(caps.shape_for(count), limit)

    def _halve(self, bucket: str, failed: int) -> None:
        shapes = [s for s in self.generator.caps.batch_shapes if s <= failed // 2]
        self.caps[bucket] = shapes[-1] if shapes else 1
        self._lower(bucket, self.caps[bucket])

    def _forward(self, chunk: Sequence[Task], limit: int) -> list[Outcome]:
        shape = self._shape(len(chunk), limit)
        padded = [*chunk, *([chunk[-1]] * (shape - len(chunk)))]
        items = [item for item, _ in padded]
        inputs = [given for _, given in padded if given is not None]
        begun = time.monotonic()
        pixels, faults = self._generate(items, inputs)
        wanted = (shape, items[0].height, items[0].width)
        if pixels.shape[:3] != wanted or pixels.dtype.name != "uint8":
            raise ValueError(
                f"the generator answered {pixels.dtype} {pixels.shape} to {shape} items of "
                f"{items[0].size}"
            )
        asking = any(item.min_score is not None for item, _ in chunk)
        scores: Sequence[float | None] = [None] * len(chunk)
        if asking and self.generator.caps.scores:
            scores = self._scores(items[: len(chunk)], pixels[: len(chunk)])
        share = (time.monotonic() - begun) * 1000 / len(chunk)
        fingerprint = self.fingerprint(shape)
        return [
            faults.get(i) or Picture(items[i], pixels[i], share, fingerprint, score)
            for i, score in enumerate(scores)
        ]

    def _generate(
        self, items: Sequence[Item], inputs: Sequence[Input]
    ) -> tuple[NDArray[np.uint8], Mapping[int, Fault]]:
        """Pictures, and the faults of some, by place."""
        generate = self.generator.generate
        try:
            return (generate(items, inputs) if inputs else generate(items)), {}
        except Rejected as verdict:
            refused = {k: Fault(REJECTED, reason) for k, reason in verdict.reasons.items()}
            failed = {k: Fault("render_failed", BROKEN) for k in verdict.broken}
            return verdict.pixels, refused | failed

    def scored(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """The same, with a score for each picture of one bucket that has none yet: where nothing
        hangs on it, it need not hold up the next batch. For any thread, in nobody's turn."""
        if not self.generator.caps.scores:
            return list(outcomes)
        made = iter(self._with_scores([one for one in outcomes if _lacks_score(one)]))
        return [next(made) if _lacks_score(one) else one for one in outcomes]

    def _with_scores(self, pictures: Sequence[Picture]) -> list[Outcome]:
        """Where a batch cannot be scored, each by itself."""
        if not pictures:
            return []
        try:
            pixels = np.stack([one.pixels for one in pictures])
            scores = self._scores([one.item for one in pictures], pixels)
        except Exception as error:
            if len(pictures) > 1:
                return [made for one in pictures for made in self._with_scores([one])]
            return [Fault("render_failed", f"{type(error).__name__}: {error}")]
        return [replace(one, score=score) for one, score in zip(pictures, scores, strict=True)]

    def _scores(self, items: Sequence[Item], pixels: NDArray[np.uint8]) -> list[float]:
        scores = list(map(float, cast(Scorer, self.generator).score(items, pixels)))
        if len(scores) != len(items) or not all(map(math.isfinite, scores)):
            raise ValueError(f"the generator scored {len(items)} pictures with {scores}")
        return scores

    def fingerprint(self, shape: int) -> str:
        """What decides the bytes at this batch shape."""
        invariant = self.generator.caps.batch_invariant
        return self._base if invariant else f"{self._base}-b{shape}"


def _lacks_score(outcome: Outcome) -> TypeGuard[Picture]:
    return isinstance(outcome, Picture) and outcome.score is None
