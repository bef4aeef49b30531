"""Answers to "how does this job stand" that were given a moment ago: whoever polls a job a
hundred times a second costs no more than twenty looks at the database."""

from __future__ import annotations

import time

FRESH = 0.05  # seconds
REMEMBERED = 4096


class Looks:
    """JSON by tenant and job. Thread-safe: each step is one of a dictionary."""

    def __init__(self) -> None:
        self._given: dict[tuple[int, str], tuple[float, bytes]] = {}

    def recent(self, tenant: int, job: str) -> bytes | None:
        found = self._given.get((tenant, job))
        return found[1] or None if found and time.monotonic() < found[0] else None

    def keep(self, tenant: int, job: str, answer: bytes, *, asked: float) -> None:
        """asked: when its figures were looked up, by `time.monotonic`."""
        if len(self._given) >= REMEMBERED:
            self._given.clear()
        if self._given.get((tenant, job), (0.0, b""))[0] - FRESH < asked:
            self._given[tenant, job] = (asked + FRESH, answer)

    def forget(self, tenant: int, job: str) -> None:
        """The job was changed here: nobody may be told what was looked up before."""
        self._given[tenant, job] = (time.monotonic() + FRESH, b"")
