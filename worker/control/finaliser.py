"""Ends jobs: completes those whose counters reach their total, cancels those that nobody
holds any more, expires those whose window closed; then takes their lanes out of Redis
and tells whoever waits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence

from promptmill import errors, failpoints
from promptmill.records import Job
from promptmill.settings import Settings
from promptmill.store import conservation, control, jobs
from promptmill.store.database import Database
from promptmill.traces import UNTRACED, Traces
from worker.control.queues import Queues

log = logging.getLogger("promptmill.control")


class Finaliser:
    def __init__(
        self,
        db: Database,
        queues: Queues,
        settings: Settings,
        *,
        traces: Traces = UNTRACED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._queues = queues
        self._period = settings.lease_seconds
        self._traces = traces
        self._clock = clock
        self._cancelling_since: dict[int, float] = {}

    def step(self) -> int:
        """Returns the jobs that ended in this round."""
        ended = [*control.finish_ready(self._db), *control.expire(self._db)]
        return self._ended([*ended, *self._finish_cancelling()])

    def look(self, moved: Collection[str]) -> int:
        """The same for these jobs (public ids), which just had results, if they are now
        complete."""
        return self._ended(control.finish_ready(self._db, sorted(moved)))

    def _ended(self, ended: Sequence[Job]) -> int:
        for job in ended:
            failpoints.reach("finaliser.ended")
            self._clear(job)
            failpoints.reach("finaliser.cleared")
            self._traces.ended(job)
            log.info("job.ended", extra={"job": job.public_id, "state": str(job.state)})
        return len(ended)

    def _finish_cancelling(self) -> list[Job]:
        waiting = [
            jobs.get(self._db, None, public_id) for public_id in conservation.cancelling(self._db)
        ]
        now = self._clock()
        self._cancelling_since = {
            job.id: self._cancelling_since.get(job.id, now) for job in waiting
        }
        finished = [
            control.finish_cancelling(self._db, job.id) for job in waiting if self._let_go(job)
        ]
        return [job for job in finished if job is not None]

    def _let_go(self, job: Job) -> bool:
        """Whether no worker holds the job's images, or none can any more."""
        if self._clock() - self._cancelling_since[job.id] >= self._period:
            return True
        try:
            return self._clear(job) == 0
        except errors.RedisDown:
            return False

    def _clear(self, job: Job) -> int:
        """Takes the job's lanes out of the queue, tells its id to whoever listens, and
        returns the images still leased. Where Redis is down the audit drops the lanes later
        and those who wait look for themselves."""
        queue = self._queues.of(job.model)
        lanes = [lane.id for lane in jobs.lanes(self._db, job.id)]
        try:
            queue.drop(lanes, version=job.version)
            queue.publish(job.public_id)
        except errors.RedisDown as outage:
            log.info("finaliser.later", extra={"job": job.public_id, "error": str(outage)})
            return 1
        return sum(held.leased for held in queue.snapshot(lanes).values())
