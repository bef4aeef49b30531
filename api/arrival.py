"""How a body must arrive: no part of it may be waited for too long, nor all of it too slowly,
nor may it be too large. Knows no request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

from api.errors import Timeout
from promptmill import errors

SILENCE = 60.0  # seconds in which a part of a body must arrive
LEAST = 1000.0  # bytes a second that must have come once a body was waited for so long

T = TypeVar("T")


class Arrival:
    """Of one body, of at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.seen = 0  # bytes
        self._limit = limit
        self._waited = 0.0  # seconds

    async def waited(self, part: Awaitable[T]) -> T:
        """The next part. Raises `Timeout` when it does not come."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(SILENCE):
                return await part
        except TimeoutError as exc:
            raise Timeout(f"no part of the body arrived for {SILENCE:.0f} seconds") from exc
        finally:
            self._waited += time.monotonic() - begun

    def came(self, count: int) -> None:
        """So many bytes more. Raises `Timeout`, `errors.TooLarge`."""
        self.seen += count
        if self._waited > SILENCE and self.seen < LEAST * self._waited:
            raise Timeout(f"less than {LEAST:.0f} bytes of the body arrive a second")
        if self.seen > self._limit:
            raise errors.TooLarge(f"the body has more than {self._limit} bytes")
