"""How many requests a tenant may send: a bucket of tokens each, in this process. Knows no
request."""

from __future__ import annotations

import threading
import time

from promptmill import errors

BURST = 10.0  # seconds' worth of requests that may come at once after a pause


class TooManyRequests(errors.LimitExceeded):
    """Too many requests: send fewer a second."""

    code = "rate_limited"


class Pacing:
    """`per_second` requests a tenant, 0 for any number. Thread-safe. Holds two numbers for
    each tenant that was seen: tenants are made by hand."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._buckets: dict[int, tuple[float, float]] = {}  # (tokens, as of)
        self._lock = threading.Lock()

    def take(self, tenant_id: int, *, now: float | None = None) -> None:
        """One request of this tenant. Raises `TooManyRequests` with the seconds to wait."""
        if not self._per_second:
            return
        now = time.monotonic() if now is None else now
        most = max(1.0, self._per_second * BURST)
        with self._lock:
            tokens, since = self._buckets.get(tenant_id, (most, now))
            tokens = min(most, tokens + (now - since) * self._per_second)
            granted = tokens >= 1.0
            self._buckets[tenant_id] = (tokens - granted, now)
        if not granted:
            raise TooManyRequests(
                f"more than {self._per_second:g} requests a second",
                retry_after=(1.0 - tokens) / self._per_second,
            )
