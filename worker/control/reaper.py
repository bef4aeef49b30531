"""Takes back the leases of dead workers. The incident is in the database before Redis is
touched, so that losing Redis cannot reset a crash loop; an image that was alone and being
rendered at three deaths is failed. Trusts no deadline until Redis has been there, under
one epoch, for a whole lease period."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from promptmill import errors, failpoints, jobs
from promptmill.jobs import ImageState
from promptmill.leases import Expired, Incident
from promptmill.queue import Queue
from promptmill.records import Result, Work
from promptmill.settings import Settings
from promptmill.store import control, images
from promptmill.store.database import Database
from worker.control.queues import Queues

log = logging.getLogger("promptmill.control")

CRASHES_ALLOWED = 3
AT_ONCE = 100
SHARD = 0  # control commits a handful of rows; any one shard of the counters does


class Grace:
    """How long the deadlines of one queue have been trustworthy. A worker that was cut
    off, too, needs up to a lease period to renew what it holds."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._since = clock()
        self._epoch: str | None = None

    def restart(self) -> None:
        self._since = self._clock()

    def over(self, queue: Queue) -> bool:
        """Asks Redis for its epoch: another one, none, or a slow answer starts anew."""
        asked = self._clock()
        epoch = queue.epoch()
        if epoch is None or epoch != self._epoch or self._clock() - asked > self._seconds / 4:
            self._epoch = epoch
            self.restart()
        return self._clock() - self._since >= self._seconds


class Reaper:
    """`reaped` counts the leases taken back, `failed` the images given up."""

    def __init__(
        self,
        db: Database,
        queues: Queues,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._queues = queues
        self._period = settings.lease_seconds
        self._clock = clock
        self._graces: dict[str, Grace] = {}
        self._cache = images.SegmentCache()
        self.reaped = 0
        self.failed = 0

    def step(self) -> int:
        """Returns the leases released in this round. An outage, of Redis or of the
        database, raises `errors.Unavailable` and starts every grace period anew: whoever
        could not commit could not make progress either."""
        try:
            return sum(self._reap(queue) for queue in self._queues.all() if self._trusted(queue))
        except errors.Unavailable:
            for grace in self._graces.values():
                grace.restart()
            raise

    def _trusted(self, queue: Queue) -> bool:
        grace = self._graces.setdefault(queue.model, Grace(self._period, self._clock))
        return grace.over(queue)

    def _reap(self, queue: Queue) -> int:
        expired = queue.expired(AT_ONCE)
        if not expired:
            return 0
        control.record_incidents(self._db, [i for each in expired for i in incidents(each)])
        failpoints.reach("reaper.recorded")
        given_up = [each for each in expired if self._give_up(queue, each)]
        for each in given_up:
            queue.ack(each.lease.id)  # released, not put back: the image is terminal
        back = queue.reap([each.lease.id for each in expired if each not in given_up])
        failpoints.reach("reaper.returned")
        self.reaped += back
        log.warning("reaper.leases", extra={"model": queue.model, "back": back})
        return back + len(given_up)

    def _give_up(self, queue: Queue, expired: Expired) -> bool:
        if not crashed(expired):
            return False
        span = expired.lease.spans[0]
        if control.charged(self._db, span.lane, span.start, "crash") < CRASHES_ALLOWED:
            return False
        works = images.fetch(self._db, expired.lease.spans, self._cache)
        if not works:
            return False  # terminal already, or its job is not queued: nothing to fail
        images.commit(
            self._db, [crash_result(work, expired.lease.worker) for work in works], shard=SHARD
        )
        self.failed += len(works)
        queue.publish(works[0].job)
        log.error("reaper.worker_crashed", extra={"job": works[0].job, "span": repr(span)})
        return True


def crashed(expired: Expired) -> bool:
    """Whether the death counts against the image: it was alone in its process and being
    rendered. A single image of an early attempt may have had neighbours in other slots."""
    lease = expired.lease
    alone = lease.count == 1 and lease.spans[0].attempt >= jobs.SOLO_ATTEMPT
    return expired.rendering and alone


def incidents(expired: Expired) -> Sequence[Incident]:
    kind = "crash" if crashed(expired) else "lost"
    return expired.lease.incidents(kind)


def crash_result(work: Work, worker: str) -> Result:
    """The terminal row of an image whose rendering kept ending its worker."""
    return Result.of(
        work,
        ImageState.FAILED,
        worker=worker,
        fingerprint=work.pinned or "",
        error_code="worker_crashed",
        error_text=f"rendering this image alone ended its worker {CRASHES_ALLOWED} times",
    )
