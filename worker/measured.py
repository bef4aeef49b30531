"""What a worker has done and how fast, for the registry, the dashboard and the ETA."""

from __future__ import annotations

import time
from collections import deque

WINDOW = 10.0  # seconds that a rate looks back
NEW = 0.2  # weight of the newest in a running mean


class Measured:
    """Written by one thread at a time (the holder of the generator), read by others.

    seconds_per_image: by bucket, a running mean. batch_seconds: of a micro-batch.
    """

    def __init__(self) -> None:
        self.images = 0
        self.batches = 0
        self.failed = 0
        self.batch = 0
        self.bucket = ""
        self.batch_seconds = 0.0
        self.seconds_per_image: dict[str, float] = {}
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

    def rate(self) -> float:
        """Images per second over the last ten seconds."""
        now = time.monotonic()
        recent = [(t, n) for t, n in list(self._recent) if now - t < WINDOW]
        if not recent:
            return 0.0
        return sum(n for _, n in recent) / max(now - recent[0][0], 1.0)
