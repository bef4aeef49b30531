"""What is rendered is not rendered again because a server was away: the steps after rendering,
which may be done twice, are tried again for a while. Knows no images."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from promptmill import errors

log = logging.getLogger(__name__)

T = TypeVar("T")

KEPT = 60.0  # seconds for which what is rendered waits
AGAIN_FIRST, AGAIN_MOST = 0.25, 5.0  # seconds between two tries


class Insistence:
    """Of one micro-batch, from its construction on. stopping: nothing waits any longer. wanted:
    whether anybody still wants it. moved: told of each try."""

    def __init__(
        self,
        *,
        stopping: threading.Event,
        wanted: Callable[[], bool],
        moved: Callable[[], None],
    ) -> None:
        self._stopping = stopping
        self._wanted = wanted
        self._moved = moved
        self._until = time.monotonic() + KEPT

    def on(self, step: Callable[[], T]) -> T:
        """What `step` returns; raises its `errors.Unavailable` when waiting has an end."""
        pause = AGAIN_FIRST
        while True:
            try:
                return step()
            except errors.Unavailable as outage:
                if time.monotonic() + pause > self._until or self._stopping.wait(pause):
                    raise
                if not self._wanted():
                    raise
                log.warning("what is rendered is kept: %s", outage)
                self._moved()
                pause = min(2 * pause, AGAIN_MOST)
