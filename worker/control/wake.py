"""Tops up the wake-ups of idle workers. A lost wake-up costs latency, never work, so this
is a courtesy: idle engines ask by themselves every second or two."""

from __future__ import annotations

from celery import Celery

from promptmill import wakeups
from worker.control.queues import Queues


class Wake:
    def __init__(self, queues: Queues, app: Celery) -> None:
        self._queues = queues
        self._app = app

    def step(self) -> int:
        """Returns the wake-ups sent in this round."""
        return sum(
            wakeups.wake(self._app, queue, queue.model)
            for queue in self._queues.all()
            if queue.depth()["queued"] > 0
        )
