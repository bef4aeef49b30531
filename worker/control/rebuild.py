"""Fills Redis from the database: one lane (a repair), or everything when Redis came back
empty. Always the database first, then Redis: whatever ends in between is queued once too
often, which the commit forgives, and never once too seldom."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from promptmill import failpoints
from promptmill.jobs import JobState
from promptmill.queue import Queue
from promptmill.records import Job, QueueLane
from promptmill.store import control, images, jobs
from promptmill.store.database import Database
from worker.control.queues import Queues

log = logging.getLogger("promptmill.control")

SETTLE = 1.0  # seconds in which live workers may still commit what they hold


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
        if self._open_jobs(queue):
            self._stop.wait(self._settle)
        filled: set[int] = set()
        for job in self._open_jobs(queue):
            if self._stop.is_set():
                return False
            filled |= self._fill_job(queue, job)
            failpoints.reach("rebuild.job")
            self._beat()
        if not filled <= set(queue.lane_ids()):
            return False  # emptied again meanwhile: the next round starts over
        queue.set_epoch()
        self.rebuilt += 1
        log.warning("rebuild.done", extra={"model": queue.model, "lanes": len(filled)})
        return True

    def _fill_job(self, queue: Queue, job: Job) -> set[int]:
        lanes = jobs.queue_lanes(self._db, job)
        return {lane.id for lane in lanes if rebuild_lane(self._db, queue, lane)}

    def _open_jobs(self, queue: Queue) -> list[Job]:
        """Small remainders first: they are back soonest."""
        queued = [
            job for job in control.open_jobs(self._db, queue.model) if job.state is JobState.QUEUED
        ]
        return sorted(queued, key=lambda job: job.counts.total - job.counts.done)
