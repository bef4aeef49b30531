"""Builds shards in the background of a worker: one thread that claims a shard, makes it and
seals it. Rendering comes first: while it goes on, the thread sleeps longer than it works."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self

from promptmill import errors, failpoints
from promptmill.blobs import BlobStore
from promptmill.exports import Export, Kind, Shard
from promptmill.store import export_shards, images
from promptmill.store import exports as stored
from promptmill.store.database import Database
from worker.exports.card import Card
from worker.exports.shard import Build
from worker.exports.task import Interrupted, Place, Task

log = logging.getLogger(__name__)

IDLE: Final = 2.0  # seconds between two looks when there is nothing to build
OUTAGE: Final = 5.0
NICE: Final = 10
REST: Final = 2.0  # while the worker renders: seconds of sleep per second of work
LONGEST_REST: Final = 1.0
HUNG: Final = 900.0  # seconds without progress after which a claim is given up


class Builder(threading.Thread):
    """owner: the worker's name. busy: whether it renders now; halted: whether it drains."""

    def __init__(
        self,
        db: Database,
        blobs: BlobStore,
        *,
        owner: str,
        lease_seconds: float,
        busy: Callable[[], bool] = lambda: False,
        halted: Callable[[], bool] = lambda: False,
        cache: images.SegmentCache | None = None,
    ) -> None:
        super().__init__(name="exports", daemon=True)
        self.stopping = threading.Event()
        self._db = db
        self._blobs = blobs
        self._owner = owner
        self._seconds = lease_seconds
        self._busy = busy
        self._halted = halted
        self._cache = cache or images.SegmentCache(16 << 20)  # not the slots': it reads all once
        self._worked = 0.0

    def run(self) -> None:
        _lower_priority()
        pause = 0.0
        while not self.stopping.wait(pause):
            try:
                pause = 0.0 if not self._halted() and self.step() else IDLE
            except errors.Unavailable as outage:
                log.info("exports wait: %s", outage)
                pause = OUTAGE

    def stop(self, seconds: float) -> None:
        """Gives back what is being built. Returns when the thread is over, or late."""
        self.stopping.set()
        if self.is_alive():
            self.join(seconds)

    def step(self) -> bool:
        """Builds one shard; false when there was none. Raises `errors.Unavailable`."""
        claimed = export_shards.claim(self._db, self._owner, seconds=self._seconds)
        if claimed is None:
            return False
        failpoints.reach("export.claimed")
        export, shard = claimed
        self._worked = time.monotonic()
        try:
            with _Claim(self._db, shard, self._seconds, self._moved) as claim:
                self._build(export, shard, claim)
        except Interrupted:
            self._give_back(shard)
        except errors.Unavailable:
            self._give_back(shard)
            raise
        except errors.NotFound:
            log.info("export %s is gone", export.public_id)
        except Exception as error:
            log.exception("shard %s of %s failed", shard.number, export.public_id)
            self._give_back(shard, error=f"{type(error).__name__}: {error}")
        return True

    def _build(self, export: Export, shard: Shard, claim: _Claim) -> None:
        _, job = stored.get(self._db, None, export.public_id)
        place = Place(self._blobs, export, job)
        kind = Card if shard.kind is Kind.CARD else Build
        task = Task(self._db, place, shard, self._cache, step=lambda: self._step(claim))
        files, summary = kind(task).run()
        sealed = export_shards.seal(self._db, shard, files, summary)
        failpoints.reach("export.sealed")
        told = {"export": export.public_id, "shard": shard.number}
        log.info("export.sealed" if sealed else "export.late", extra=told)

    def _step(self, claim: _Claim) -> None:
        """Between a few images and the next: lets rendering go first."""
        if claim.lost.is_set() or self.stopping.is_set() or self._halted():
            raise Interrupted
        if self._busy():
            self.stopping.wait(min(LONGEST_REST, REST * (time.monotonic() - self._worked)))
        self._worked = time.monotonic()

    def _moved(self) -> float:
        return self._worked

    def _give_back(self, shard: Shard, *, error: str | None = None) -> None:
        try:
            export_shards.give_back(self._db, shard, error=error)
        except errors.Unavailable as outage:
            log.info("shard %s comes back by itself: %s", shard.number, outage)


class _Claim:
    """Renews the claim on a shard while it is built, also through one long upload. `lost`:
    somebody else has the shard, or nobody wants it any more."""

    def __init__(
        self, db: Database, shard: Shard, seconds: float, moved: Callable[[], float]
    ) -> None:
        self.lost = threading.Event()
        self._db, self._shard, self._seconds, self._moved = db, shard, seconds, moved
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="exports-claim", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._over.wait(self._seconds / 4) and not self.lost.is_set():
            if time.monotonic() - self._moved() > HUNG:
                self.lost.set()
                return
            try:
                if not export_shards.renew(self._db, self._shard, seconds=self._seconds):
                    self.lost.set()
            except errors.Unavailable as outage:
                log.info("a claim is not renewed: %s", outage)


def _lower_priority() -> None:
    """Of this thread alone, where the system can."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
