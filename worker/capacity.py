"""How large the micro-batches of a bucket are on this device, and what an image costs: decided
here, remembered in the database for workers like this one, told to the queue."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from promptmill import errors
from promptmill.queue import Queue
from promptmill.store import models
from promptmill.store.database import Database
from worker import shapes
from worker.generators.base import Generator
from worker.inputs import Ready
from worker.measured import Measured
from worker.render import Abandoned, Renderer

log = logging.getLogger(__name__)


class Capacity:
    """place: the fingerprint and device that it holds for. rates: images per second by batch
    shape, of the buckets that were measured here, each the first of its kind; of images of at
    most `shapes.STEPS` steps. `settle` and `lower` are for the holder of the turn."""

    def __init__(self, generator: Generator, place: str, *, db: Database, queue: Queue) -> None:
        self.generator = generator
        self.place = place
        self.rates: dict[str, Mapping[int, float]] = {}
        self._db = db
        self._queue = queue
        self._costs: dict[str, float] = {}

    def known(self) -> dict[str, int]:
        """The largest batch that fits, by bucket."""
        return models.caps(self._db, self.generator.name, self.place)

    def settle(
        self, renderer: Renderer, bucket: str, first: Ready, *, progress: Callable[[], None]
    ) -> None:
        """Decides the batch shape of a bucket that is new to this worker: what stands for it
        or its kind in the farm; else as large as the budget allows, or what measures best where
        a shape, once chosen, decides the bytes."""
        caps, item, name = self.generator.caps, first.work.item, self.generator.name
        most = caps.most_of(item)
        if bucket in renderer.caps or (caps.batch_invariant and most == caps.max_batch):
            return
        standing = models.standing_cap(self._db, name, self.place, bucket)
        if standing is None and not caps.batch_invariant and most > caps.batch_shapes[0]:
            renderer.tell(progress)
            try:
                found = shapes.find(self.generator, item, first.input, most=most, progress=progress)
            except Abandoned:
                raise
            except Exception as error:
                log.info("the shape of %s is measured with another item: %s", bucket, error)
                return
            self.rates[bucket] = found.rates
            most = found.best or caps.batch_shapes[0]
        cap = models.settle_cap(self._db, name, self.place, bucket, most)
        renderer.caps[bucket] = cap
        self._tell(bucket, cap)

    def lower(self, bucket: str, cap: int) -> None:
        """Memory ran out: no batch of the bucket is larger from now on, nor of one of its kind
        that is yet to come."""
        log.warning("out of memory in %s: batches of %d from now on", bucket, cap)
        models.remember_cap(self._db, self.generator.name, self.place, bucket, cap)
        self._tell(bucket, cap)

    def _tell(self, bucket: str, cap: int) -> None:
        try:
            self._queue.set_cap(bucket, cap)
        except errors.RedisDown:
            log.info("redis is down: the cap of %s is told at the next start", bucket)

    def remember_costs(self, measured: Measured) -> None:
        """Tells the database what an image of each bucket costs, when it has changed."""
        for bucket, seconds in list(measured.seconds_per_image.items()):
            known = self._costs.get(bucket)
            if known is None or not 0.8 < seconds / known < 1.25:
                models.remember_cost(self._db, self.generator.name, bucket, seconds)
                self._costs[bucket] = seconds
