"""Whoever waits for a single picture calls the workers at once: a wake-up over Celery takes
several milliseconds, and reaches idle workers alone. A call that nobody hears costs nothing
but time, since a slot at rest looks by itself every second."""

from __future__ import annotations

import threading
from collections.abc import Callable

from promptmill import errors
from promptmill.queue import Queue

AGAIN = 1.0  # seconds until a broken connection is made anew


class Calls(threading.Thread):
    """`heard` is called at each call, until `stop` is set."""

    def __init__(self, queue: Queue, heard: Callable[[], object], *, stop: threading.Event) -> None:
        super().__init__(name="calls", daemon=True)
        self._queue = queue
        self._heard = heard
        self._stop_set = stop

    def run(self) -> None:
        while not self._stop_set.is_set():
            try:
                for _ in self._queue.calls(self._stop_set):
                    self._heard()
            except errors.RedisDown:
                self._stop_set.wait(AGAIN)
