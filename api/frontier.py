"""Which images of a job finished since the last look, found without an index by time:
work finishes roughly in row order, so a window behind the first unfinished row holds them."""

from __future__ import annotations

from promptmill import jobs, records
from promptmill.store import images
from promptmill.store.database import Database

WINDOW = 256  # images that may be in work at once around the first unfinished one
MOST = 200  # images reported at one look; more are only counted


class Frontier:
    """Remembers the finished images above the first unfinished one. For one thread at a
    time; memory is bounded by `WINDOW + MOST`."""

    def __init__(self, db: Database, job: records.Job, cache: images.SegmentCache) -> None:
        self._db = db
        self._cache = cache
        self._start(job)

    def _start(self, job: records.Job) -> None:
        finished = job.counts.done + job.counts.failed
        self._generation = job.generation
        self._told = finished  # images reported, or given up as missed
        self._floor = max(-1, finished - WINDOW - 1)  # all up to here: not reported
        self._seen = {image.item.index for image in self._window(job)}

    def _window(self, job: records.Job) -> list[records.Image]:
        found, _ = images.page(
            self._db,
            job,
            after=self._floor if self._floor >= 0 else None,
            limit=WINDOW + MOST,
            states=(jobs.ImageState.DONE, jobs.ImageState.FAILED),
            cache=self._cache,
        )
        return found

    def advance(self, job: records.Job) -> tuple[tuple[records.Image, ...], bool]:
        """(images that finished since the last call, whether there are others too)."""
        untold = job.counts.done + job.counts.failed - self._told
        if job.generation != self._generation or untold > MOST:
            self._start(job)
            return (), True
        if untold <= 0:
            return (), False
        new = tuple(i for i in self._window(job) if i.item.index not in self._seen)
        self._seen.update(image.item.index for image in new)
        self._told += max(untold, len(new))
        self._rise()
        if len(self._seen) > WINDOW:
            self._start(job)
        return new, len(new) < untold

    def _rise(self) -> None:
        while self._floor + 1 in self._seen:
            self._floor += 1
            self._seen.remove(self._floor)
