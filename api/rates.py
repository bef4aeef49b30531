"""How fast a job moves and when it will be done, from what this process has seen of it.
Knows no database: it is shown jobs and remembers a few numbers of each."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from promptmill import jobs, records

RATE_WINDOW = 10.0  # seconds over which images_per_second is taken
ETA_WINDOW = 30.0  # seconds over which the pace for the ETA is taken
LEAST_STEP = 0.2  # seconds between two samples that are kept
LEAST_SPAN = 0.9  # seconds that samples must cover to be believed
REMEMBERED = 2048  # jobs


@dataclass(frozen=True, slots=True)
class Pace:
    """images_per_second: finished images (done or failed) a second. eta_seconds: None when
    nothing moves."""

    images_per_second: float
    eta_seconds: float | None


@dataclass(slots=True)
class _Track:
    generation: int
    samples: deque[tuple[float, int]] = field(default_factory=deque)  # (monotonic, finished)

    def add(self, now: float, finished: int) -> None:
        """The wait before the first image tells nothing of the pace: of the samples before
        it only the last is kept."""
        if not finished:
            self.samples.clear()
        if len(self.samples) > 1 and now - self.samples[-2][0] < LEAST_STEP:
            self.samples.pop()
        self.samples.append((now, finished))
        while now - self.samples[0][0] > 2 * ETA_WINDOW:
            self.samples.popleft()

    def per_second(self, window: float) -> float | None:
        now, finished = self.samples[-1]
        since, base = next(s for s in self.samples if now - s[0] <= window)
        if now - since < LEAST_SPAN:
            return None
        return (finished - base) / (now - since)


class Rates:
    """The last minute of the jobs that were looked at, most recent ones only. Thread-safe."""

    def __init__(self) -> None:
        self._tracks: OrderedDict[str, _Track] = OrderedDict()
        self._lock = threading.Lock()

    def observe(self, job: records.Job, *, wall: float, now: float | None = None) -> Pace:
        """Takes `job` as a sample and tells its pace. `wall`: the database's time in Unix
        seconds, for the jobs seen for the first time."""
        if job.state is not jobs.JobState.QUEUED:
            return Pace(0.0 if job.state in jobs.LIVE else _overall(job, wall), None)
        now = time.monotonic() if now is None else now
        finished = job.counts.done + job.counts.failed
        with self._lock:
            track = self._tracks.get(job.public_id)
            if track is None or track.generation != job.generation:
                track = self._tracks[job.public_id] = _Track(job.generation)
            self._tracks.move_to_end(job.public_id)
            while len(self._tracks) > REMEMBERED:
                self._tracks.popitem(last=False)
            track.add(now, finished)
            rate, trend = track.per_second(RATE_WINDOW), track.per_second(ETA_WINDOW)
        if rate is None:
            rate = trend = _overall(job, wall) if job.generation == 0 else 0.0
        left = job.counts.total - finished
        return Pace(rate, left / trend if rate and trend else None)


def _overall(job: records.Job, wall: float) -> float:
    """Finished images a second since the job started; 0 before, and while that is too short
    a time to tell."""
    if job.started_at is None:
        return 0.0
    spent = (job.finished_at or wall) - job.started_at
    return (job.counts.done + job.counts.failed) / spent if spent >= LEAST_SPAN else 0.0
