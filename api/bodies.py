"""An upload on its way from the event loop to the thread that reads it: pulled chunk by
chunk, so that a slow reader slows the sender and nothing piles up (a small one is taken whole);
and the places that uploads take, of which no tenant has all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

import anyio.from_thread
import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import Request
from starlette.requests import ClientDisconnect

from api.arrival import Arrival
from promptmill import errors

SMALL = 64 * 1024  # bytes of a body that is taken before a thread reads it
UPLOADS, OWN = 64, 16  # bodies read at once by this process, and of one tenant
WHOLE, OWN_WHOLE = 24, 8  # the same of those that are there already: their work is short

T = TypeVar("T")


class Uploads:
    """The places of this process. Whoever finds none waits for one: behind other uploads of
    the same tenant first."""

    def __init__(self, places: int = UPLOADS, own: int = OWN) -> None:
        self._places = CapacityLimiter(places)
        self._most = own
        self._own: dict[int, CapacityLimiter] = {}  # tenants are made by hand

    async def run(self, tenant_id: int, work: Callable[[], T]) -> T:
        """What `work` returns, called in a thread of its own."""
        own = self._own.setdefault(tenant_id, CapacityLimiter(self._most))
        async with own:
            return await anyio.to_thread.run_sync(work, limiter=self._places)


class Disconnected(errors.BadRequest):
    """The client went away before the body was complete."""

    code = "client_disconnected"


class Chunks:
    """The request's body as an iterator of bytes, for one anyio worker thread. Raises
    `Disconnected`, `Timeout`, or `errors.TooLarge` over `limit` bytes."""

    def __init__(self, request: Request, *, limit: int) -> None:
        length = request.headers.get("content-length", "")
        self._length = int(length) if length.isdigit() else None
        if self._length and self._length > limit:
            raise errors.TooLarge(f"the body has more than {limit} bytes")
        self._stream: AsyncIterator[bytes] = request.stream()
        self._arrival = Arrival(limit)
        self._ahead: list[bytes] = []
        self._over = False

    async def ahead(self) -> None:
        """Takes a small body before a thread does, which has to wait for the event loop at each
        chunk."""
        if self._length is not None and self._length <= SMALL:
            while self._arrival.seen <= SMALL and (chunk := await self._next()):
                self._ahead.append(chunk)

    @property
    def whole(self) -> bool:
        """Nothing more is to come."""
        return self._over

    def __iter__(self) -> Iterator[bytes]:
        yield from self._ahead
        while not self._over and (chunk := anyio.from_thread.run(self._next)):
            yield chunk

    async def _next(self) -> bytes:
        """The next chunk that is not empty; empty at the end."""
        try:
            chunk = await self._arrival.waited(self._filled())
        except ClientDisconnect as exc:
            raise Disconnected() from exc
        self._over = not chunk
        self._arrival.came(len(chunk))
        return chunk

    async def _filled(self) -> bytes:
        async for chunk in self._stream:
            if chunk:
                return chunk
        return b""
