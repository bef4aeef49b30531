"""Conservation: every image of a queued job is terminal in the database, or queued, leased
or waiting for a retry in Redis. Redis is read first, in one script, then the database, so
that an image on its way is counted twice and never not at all. A job that is short twice,
a while apart and unchanged, gets the lanes that are short from the database again."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from promptmill import errors, failpoints
from promptmill.jobs import JobState
from promptmill.leases import LaneCount
from promptmill.queue import Queue
from promptmill.records import Job
from promptmill.store import conservation, control, jobs
from promptmill.store.conservation import OpenJob
from promptmill.store.database import Database
from worker.control.queues import Queues
from worker.control.rebuild import PAGE, pages, rebuild_lane

log = logging.getLogger("promptmill.control")

CONFIRM = 2.0  # seconds between the commit of a job and its `replace` that are forgiven
BUDGET = 0.5  # seconds of one round
ABSENT = LaneCount(queued=0, leased=0, retry=0, registered=False)


@dataclass(frozen=True, slots=True)
class Suspect:
    """A job that was short at `since` (monotonic), as it was then."""

    job: OpenJob
    since: float


def held(count: LaneCount) -> int:
    return count.queued + count.leased + count.retry


def stranded(count: LaneCount) -> bool:
    """Images in a lane that the scheduler does not know: nobody will ever lease them."""
    return not count.registered and held(count) > 0


def is_short(job: OpenJob, terminal: int, counts: Mapping[int, LaneCount]) -> bool:
    lanes = [counts.get(lane, ABSENT) for lane in job.lanes]
    return terminal + sum(map(held, lanes)) < job.total or any(map(stranded, lanes))


class Audit:
    """`repairs` counts the lanes given back, `dropped` the stray lanes removed."""

    def __init__(
        self,
        db: Database,
        queues: Queues,
        *,
        confirm: float = CONFIRM,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._queues = queues
        self._confirm = confirm
        self._clock = clock
        self._cursor: dict[str, int] = {}
        self._epochs: dict[str, str] = {}
        self._suspects: dict[str, dict[int, Suspect]] = {}
        self.repairs = 0
        self.dropped = 0

    def step(self) -> int:
        """One round over the open jobs, or as many pages of them as the budget allows.
        Returns the lanes repaired."""
        return sum(self._audit(queue) for queue in self._queues.all())

    def strays(self) -> int:
        """Drops the lanes in Redis whose job is not queued: its pause, cancel or end was
        cut off before Redis heard of it. Returns their number."""
        return sum(self._drop_strays(queue) for queue in self._queues.all())

    def _audit(self, queue: Queue) -> int:
        epoch = queue.epoch()
        if epoch is None or epoch != self._epochs.get(queue.model):
            self._suspects[queue.model] = {}
        if epoch is None:
            return 0  # Redis is empty: everything is short, and the rebuild is on its way
        self._epochs[queue.model] = epoch
        repaired = self._confirm_suspects(queue)
        self._scan(queue)
        return repaired

    def _scan(self, queue: Queue) -> None:
        """Looks for jobs that are short now, from where the last round stopped."""
        begun = self._clock()
        suspects = self._suspects[queue.model]
        start = self._cursor.get(queue.model, 0)
        while True:
            page = conservation.open_page(self._db, queue.model, after=start, limit=PAGE)
            for job in self._short(queue, page):
                suspects.setdefault(job.id, Suspect(job, self._clock()))
            start = page[-1].id if len(page) == PAGE else 0
            if start == 0 or self._clock() - begun > BUDGET:
                break
        self._cursor[queue.model] = start

    def _short(self, queue: Queue, page: Sequence[OpenJob]) -> list[OpenJob]:
        """The jobs of the page that miss images, Redis read before the database. A job
        that changed since the page was read is left for the next round."""
        lanes = [lane for job in page for lane in job.lanes]
        if not lanes:
            return []
        counts = queue.snapshot(lanes)
        ends = conservation.progress(self._db, [job.id for job in page])
        return [
            job
            for job in page
            if (end := ends.get(job.id)) is not None
            and end.version == job.version
            and is_short(job, end.terminal, counts)
        ]

    def _confirm_suspects(self, queue: Queue) -> int:
        """Repairs what is still short, and unchanged, `confirm` seconds later."""
        suspects = self._suspects[queue.model]
        ripe = [s for s in suspects.values() if self._clock() - s.since >= self._confirm]
        repaired = 0
        for page in pages([s.job for s in ripe]):
            for job in self._short(queue, page):
                repaired += self._repair(queue, job)
        for suspect in ripe:
            del suspects[suspect.job.id]
        return repaired

    def _repair(self, queue: Queue, suspect: OpenJob) -> int:
        """Rebuilds the lanes of the job that are short, by a count of their rows."""
        job = self._unchanged(suspect)
        if job is None:
            return 0
        counts = queue.snapshot(suspect.lanes)
        terminals = control.lane_terminals(self._db, suspect.lanes)
        repaired = 0
        for lane in jobs.queue_lanes(self._db, job):
            count = counts.get(lane.id, ABSENT)
            missing = lane.count - terminals.get(lane.id, 0) - held(count)
            if (missing > 0 or stranded(count)) and rebuild_lane(self._db, queue, lane):
                log.warning(
                    "audit.repaired", extra={"job": job.public_id, "lane": lane.id, "n": missing}
                )
                repaired += 1
                failpoints.reach("audit.repaired")
        self.repairs += repaired
        return repaired

    def _unchanged(self, suspect: OpenJob) -> Job | None:
        """The job as it stands, unless it moved on since it became suspect."""
        try:
            job = jobs.get(self._db, None, suspect.public_id)
        except errors.NotFound:
            return None
        return job if (job.state, job.version) == (JobState.QUEUED, suspect.version) else None

    def _drop_strays(self, queue: Queue) -> int:
        registered = queue.lane_ids()  # Redis first: a lane that comes later is not judged
        dropped = 0
        for ids in pages(registered):
            by_version: dict[int, list[int]] = defaultdict(list)
            for lane, version in control.closed_lanes(self._db, ids).items():
                by_version[version].append(lane)
            for version, lanes in by_version.items():
                queue.drop(lanes, version=version)
                dropped += len(lanes)
        if dropped:
            self.dropped += dropped
            log.warning("audit.dropped", extra={"model": queue.model, "lanes": dropped})
        return dropped
