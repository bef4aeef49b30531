"""Hears from the queues which jobs moved, so that a job ends milliseconds after its last
commit. Only a shortcut: what is not heard, the finaliser's next round finds."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection

from promptmill import errors
from promptmill.queue import Queue
from worker.control.queues import Queues

log = logging.getLogger("promptmill.control")

PAUSE = 0.05  # seconds between two looks, so that a busy farm is not asked at each commit


class Ears:
    """`heard(public ids)` is called with the jobs that moved, from one thread."""

    def __init__(
        self, queues: Queues, heard: Callable[[Collection[str]], object], *, stop: threading.Event
    ) -> None:
        self._queues = queues
        self._heard = heard
        self._stop = stop
        self._moved: set[str] = set()
        self._changed = threading.Condition()
        self._listeners: dict[str, threading.Thread] = {}

    def step(self) -> None:
        """Listens to every queue that nobody listens to: new ones, and those whose
        connection broke."""
        for queue in self._queues.all():
            listener = self._listeners.get(queue.model)
            if listener is None or not listener.is_alive():
                self._listeners[queue.model] = self._started(f"ears-{queue.model}", queue)

    def join(self, timeout: float) -> None:
        """After `stop`: waits until the listeners have left their queues."""
        for listener in self._listeners.values():
            listener.join(timeout)

    def _started(self, name: str, queue: Queue) -> threading.Thread:
        thread = threading.Thread(target=self._listen, args=(queue,), name=name, daemon=True)
        thread.start()
        return thread

    def _listen(self, queue: Queue) -> None:
        try:
            for public_id in queue.listen(self._stop):
                with self._changed:
                    self._moved.add(public_id)
                    self._changed.notify()
        except errors.RedisDown as outage:
            log.info("ears.deaf", extra={"model": queue.model, "error": str(outage)})

    def tell(self) -> None:
        """Waits up to a second for news and passes it on."""
        with self._changed:
            self._changed.wait_for(lambda: self._moved or self._stop.is_set(), 1.0)
            moved, self._moved = self._moved, set()
        if moved:
            self._heard(moved)
