"""Plans exports: which images make the next shards, while the job still renders.
Builds nothing."""

from __future__ import annotations

import logging
import threading

from promptmill import errors
from promptmill.store import export_plans, images
from promptmill.store.database import Database

log = logging.getLogger("promptmill.control")

IN_A_ROW = 100  # shards of one export planned before the others have their turn


class Exporting:
    """`planned` counts the shards and cards planned."""

    def __init__(self, db: Database, *, stop: threading.Event) -> None:
        self._db = db
        self._stop = stop
        self._cache = images.SegmentCache(8 << 20)
        self.planned = 0

    def step(self) -> int:
        """One round over the exports that are being built. Returns what was planned."""
        before = self.planned
        for export_id in export_plans.waiting(self._db):
            if self._stop.is_set():
                break
            self._plan(export_id)
        return self.planned - before

    def _plan(self, export_id: int) -> None:
        try:
            if not export_plans.find_columns(self._db, export_id, stopped=self._stop.is_set):
                return
        except errors.BadRequest as error:
            export_plans.fail(self._db, export_id, str(error))
            return
        for _ in range(IN_A_ROW):
            if self._stop.is_set() or not export_plans.plan(self._db, export_id, self._cache):
                return
            self.planned += 1
