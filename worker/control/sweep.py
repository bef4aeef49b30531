"""Deletes objects that nothing refers to: those of a generation that is over and have no
row, those of deleted jobs and exports (at once and a day later, for writers that were asleep); ends
abandoned uploads and what is too old to keep. A tar part stays while any row lies in it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from promptmill import failpoints, keys
from promptmill.blobs import BlobStore, Stored
from promptmill.records import Job
from promptmill.settings import Settings
from promptmill.store import (
    batch_ends,
    control,
    exports,
    files,
    images,
    outbox,
    submissions,
    uploads,
)
from promptmill.store.database import Database

log = logging.getLogger("promptmill.control")

ABANDONED = 3600.0  # seconds of silence after which an upload is given up
AT_ONCE = 500  # objects deleted in one call


class Known:
    """The keys that rows of one generation have: a bit for each image, since ten million
    keys as text would be a gigabyte, and text for parts and repaired copies."""

    def __init__(self, job: Job, generation: int) -> None:
        self._job = job
        self._generation = generation
        self._bits = bytearray(job.counts.total // 8 + 1)
        self._others: set[str] = set()

    def add(self, key: str) -> None:
        index = self._index(key)
        if index is None:
            self._others.add(key)
        else:
            self._bits[index >> 3] |= 1 << (index & 7)

    def __contains__(self, key: str) -> bool:
        index = self._index(key)
        if index is None:
            return key in self._others
        return bool(self._bits[index >> 3] & (1 << (index & 7)))

    def _index(self, key: str) -> int | None:
        """The index of an image's own object; None for any other key."""
        stem = key.rpartition("/")[2].partition(".")[0]
        if not (stem.isascii() and stem.isdigit()) or int(stem) >= self._job.counts.total:
            return None
        job = self._job
        name = keys.image(job.output, job.public_id, generation=self._generation, index=int(stem))
        return int(stem) if name == key else None


class Sweep:
    """`swept` counts the objects deleted."""

    def __init__(
        self,
        db: Database,
        blobs: BlobStore,
        settings: Settings,
        *,
        stop: threading.Event,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db = db
        self._blobs = blobs
        self._days = settings.retention_days
        self._settle = 2 * settings.lease_seconds
        self._stop = stop
        self._clock = clock
        self._retried: dict[tuple[int, int], float] = {}
        self.swept = 0

    def generations(self) -> int:
        """One round over the generations that are over. Returns the objects deleted."""
        before = self.swept
        waiting: dict[tuple[int, int], float] = {}
        for job in control.sweepable(self._db, settled=self._settle):
            for generation in control.sweepable_generations(self._db, job.id):
                place = (job.id, generation)
                since = self._retried.get(place, self._clock())
                if job.finished_at is None and self._clock() - since < self._settle:
                    waiting[place] = since  # retried: its old slots may still be putting
                    break
                if self._stop.is_set() or not self._sweep(job, generation):
                    break
                control.swept(self._db, job.id, generation)
        self._retried = waiting
        return self.swept - before

    def tombstones(self) -> int:
        """Deletes all objects of deleted jobs. Returns the jobs swept."""
        swept = 0
        for job in control.tombstones(self._db):
            self._delete(
                o.key for o in self._blobs.list(keys.job_prefix(job.output, job.public_id))
            )
            if self._stop.is_set():
                break
            control.purge(self._db, job.id)
            swept += 1
        return swept

    def exports(self) -> int:
        """Deletes all objects of deleted exports. Returns the exports swept."""
        swept = 0
        for export, job in exports.deleted(self._db):
            prefix = keys.export_prefix(job.output, job.public_id, export.public_id)
            self._delete(o.key for o in self._blobs.list(prefix))
            if self._stop.is_set():
                break
            exports.purge(self._db, export.id)
            swept += 1
        return swept

    def retention(self) -> int:
        """Deletes the jobs that are older than the setting allows, which may be never, and
        batches that never became one. Returns them."""
        if self._days <= 0:
            return 0
        outbox.retention(self._db, self._days)
        jobs = control.retention(self._db, self._days)
        return len(jobs) + batch_ends.retention(self._db, self._days)

    def files(self) -> int:
        """Deletes uploaded files that were deleted, that expired, or that never arrived
        whole. Returns them."""
        dead = files.dead(self._db, AT_ONCE)
        self._delete(keys.file(file.public_id) for file in dead if file.batch_id is None)
        if dead and not self._stop.is_set():
            files.forget(self._db, [file.id for file in dead])
        return len(dead)

    def parts(self) -> int:
        """Deletes the parts of files that came in parts, once the file is made or given up.
        Returns the uploads."""
        dead = uploads.dead(self._db, AT_ONCE)
        for upload, wholly in dead:
            prefix = keys.upload_prefix(upload.public_id)
            self._delete(o.key for o in self._blobs.list(prefix))
            if self._stop.is_set():
                break
            uploads.forget(self._db, upload, wholly=wholly)
        return len(dead)

    def uploads(self) -> int:
        """Gives up the uploads that nobody goes on with; their objects go as tombstones."""
        silent = submissions.stale(self._db, ABANDONED)
        for upload in silent:
            submissions.abandon(self._db, upload)
        return len(silent)

    def _sweep(self, job: Job, generation: int) -> bool:
        """True when nothing is left to look at again. What is younger than two lease periods
        stays for the next round: a repair puts the object first and its row after."""
        known = Known(job, generation)
        for key in images.existing(self._db, job.id, generation):
            known.add(key)
        young = 0

        def orphans() -> Iterator[str]:
            nonlocal young
            for stored in self._listed(job, generation):
                if stored.key in known:
                    continue
                if self._clock() - stored.modified < self._settle:
                    young += 1
                else:
                    yield stored.key

        self._delete(orphans())
        return young == 0 and not self._stop.is_set()

    def _listed(self, job: Job, generation: int) -> Iterator[Stored]:
        return self._blobs.list(keys.generation_prefix(job.output, job.public_id, generation))

    def _delete(self, orphans: Iterable[str]) -> None:
        waiting = iter(orphans)
        while (some := list(islice(waiting, AT_ONCE))) and not self._stop.is_set():
            self._blobs.delete(some)
            failpoints.reach("sweep.deleted")
            self.swept += len(some)
            log.info("sweep.deleted", extra={"count": len(some), "first": some[0]})
