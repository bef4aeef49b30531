"""What a worker has done and how fast, for the registry, the dashboard and the ETA."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Mapping

WINDOW = 10.0  # seconds that a rate looks back
NEW = 0.2  # weight of the newest in a running mean


class Steps:
    """Where the time of one micro-batch goes. began: when it did, last: when the step before
    ended, both by `time.monotonic`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.began = self.last = time.monotonic()

    def end(self, name: str) -> None:
        """The step that began when the one before ended."""
        began, self.last = self.last, time.monotonic()
        self.seconds[name] = self.last - began


class Measured:
    """Written by one thread at a time (the holder of the generator), read by others.

    seconds_per_image: by bucket, a running mean. batch_seconds: of a micro-batch. steps:
    seconds of each step of all that was acknowledged, since the start; those of slots that
    work side by side add up.
    """

    def __init__(self) -> None:
        self.images = 0
        self.batches = 0
        self.failed = 0
        self.batch = 0
        self.bucket = ""
        self.batch_seconds = 0.0
        self.seconds_per_image: dict[str, float] = {}
        self.steps: dict[str, float] = defaultdict(float)
        self._adding = threading.Lock()
        self._recent: deque[tuple[float, int]] = deque(maxlen=1000)

    def add(self, bucket: str, count: int, seconds: float) -> None:
        """One micro-batch rendered."""
        self.images += count
        self.batches += 1
        self.batch, self.bucket = count, bucket
        self.batch_seconds += NEW * (seconds - self.batch_seconds)
        old = self.seconds_per_image.get(bucket, seconds / count)
        self.seconds_per_image[bucket] = old + NEW * (seconds / count - old)
        self._recent.append((time.monotonic(), count))

    def over(self, seconds: Mapping[str, float]) -> None:
        """One micro-batch is acknowledged; by any thread."""
        with self._adding:
            for name, spent in seconds.items():
                self.steps[name] += spent

    def rate(self) -> float:
        """Images per second over the last ten seconds."""
        now = time.monotonic()
        recent = [(t, n) for t, n in list(self._recent) if now - t < WINDOW]
        if not recent:
            return 0.0
        return sum(n for _, n in recent) / max(now - recent[0][0], 1.0)
