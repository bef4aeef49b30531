"""Fills Redis from the database: one lane (a repair), or everything when Redis came back
empty. Always the database first, then Redis: whatever ends in between is queued once too
often, which the commit forgives, and never once too seldom."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from promptmill import failpoints
from promptmill.leases import QueueLane, Span
from promptmill.queue import Queue
from promptmill.store import conservation, control, images
from promptmill.store.conservation import OpenLane
from promptmill.store.database import Database
from worker.control.queues import Queues

log = logging.getLogger("promptmill.control")

SETTLE = 1.0  # seconds in which live workers may still commit what they hold
PAGE = 500  # jobs, or lanes, at once

T = TypeVar("T")


def pages(things: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(things), PAGE):
        yield things[start : start + PAGE]


def rebuild_lane(db: Database, queue: Queue, lane: QueueLane) -> bool:
    """Queues what the lane lacks, less what is leased or waits for a retry; false when
    the queue knows a newer version of the job, and keeps that."""
    return queue.replace(lane, images.gaps(db, lane.id))


class Rebuild:
    """`rebuilt` counts how often a queue was filled anew."""

    def __init__(
        self,
        db: Database,
        queues: Queues,
        *,
        stop: threading.Event,
        beat: Callable[[], None] = lambda: None,
        settle: float = SETTLE,
    ) -> None:
        self._db = db
        self._queues = queues
        self._stop = stop
        self._beat = beat
        self._settle = settle
        self.rebuilt = 0

    def step(self) -> int:
        """Returns the number of queues filled in this round."""
        cold = [queue for queue in self._queues.all() if queue.epoch() is None]
        return sum(self._fill(queue) for queue in cold)

    def _fill(self, queue: Queue) -> bool:
        """Lanes that nobody has begun need no look at their images and come first; of the
        others the small remainders, which are back soonest."""
        token = queue.begin_rebuild()
        if next(self._pages(queue), None):
            self._stop.wait(self._settle)
        filled: set[int] = set()
        begun: list[OpenLane] = []
        for page in self._pages(queue):
            begun += [one for one in page if one.touched]
            filled |= {
                one.lane.id
                for one in page
                if not one.touched and queue.replace(one.lane, [Span(0, one.lane.count)])
            }
            failpoints.reach("rebuild.filling")
        for one in sorted(begun, key=lambda one: one.left):
            if self._progress() and rebuild_lane(self._db, queue, one.lane):
                filled.add(one.lane.id)
        return not self._stop.is_set() and self._open(queue, token, filled)

    def _open(self, queue: Queue, token: str, filled: set[int]) -> bool:
        for lost in pages(list(filled - set(queue.lane_ids()))):
            if len(control.closed_lanes(self._db, lost)) < len(lost):
                return False  # a crash of Redis lost its newest: the next round starts over
        if not queue.set_epoch(token):
            return False  # emptied meanwhile, also of what came after its page was read
        failpoints.reach("rebuild.opened")
        self.rebuilt += 1
        log.warning("rebuild.done", extra={"model": queue.model, "lanes": len(filled)})
        return True

    def _pages(self, queue: Queue) -> Iterator[list[OpenLane]]:
        after = 0
        while self._progress():
            page = conservation.lanes_page(self._db, queue.model, after=after, limit=PAGE)
            if not page:
                return
            yield page
            after = page[-1].lane.job_id

    def _progress(self) -> bool:
        """False once control is to end; until then it is alive."""
        self._beat()
        return not self._stop.is_set()
