"""The queues that control looks after: one per registered model, opened when first seen."""

from __future__ import annotations

import threading
from collections.abc import Callable

from promptmill.queue import Queue
from promptmill.store import models
from promptmill.store.database import Database


class Queues:
    """`open_queue(model)` makes the queue of a model; each is made once and kept."""

    def __init__(self, db: Database, open_queue: Callable[[str], Queue]) -> None:
        self._db = db
        self._open = open_queue
        self._known: dict[str, Queue] = {}
        self._lock = threading.Lock()

    def all(self) -> list[Queue]:
        """The queue of every registered model. Raises `errors.DatabaseDown`."""
        return [self.of(model.name) for model in models.all(self._db)]

    def of(self, model: str) -> Queue:
        with self._lock:
            if model not in self._known:
                self._known[model] = self._open(model)
            return self._known[model]

    def close(self) -> None:
        with self._lock:
            for queue in self._known.values():
                queue.close()
            self._known.clear()
