"""An upload on its way from the event loop to the thread that reads it: pulled chunk by
chunk, so that a slow reader slows the sender and nothing piles up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import anyio.from_thread
from fastapi import Request
from starlette.requests import ClientDisconnect

from api.errors import Timeout
from promptmill import errors

SILENCE = 60.0  # seconds in which a chunk must arrive


class Disconnected(errors.BadRequest):
    """The client went away before the body was complete."""

    code = "client_disconnected"


class Chunks:
    """The request's body as an iterator of bytes, for one anyio worker thread. Raises
    `Disconnected`, `Timeout`, or `errors.TooLarge` over `limit` bytes."""

    def __init__(self, request: Request, *, limit: int) -> None:
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > limit:
            raise errors.TooLarge(f"the body has more than {limit} bytes")
        self._stream: AsyncIterator[bytes] = request.stream()
        self._limit = limit

    def __iter__(self) -> Iterator[bytes]:
        seen = 0
        while chunk := anyio.from_thread.run(self._next):
            seen += len(chunk)
            if seen > self._limit:
                raise errors.TooLarge(f"the body has more than {self._limit} bytes")
            yield chunk

    async def _next(self) -> bytes:
        """The next chunk that is not empty; empty at the end."""
        try:
            async with asyncio.timeout(SILENCE):
                async for chunk in self._stream:
                    if chunk:
                        return chunk
        except ClientDisconnect as exc:
            raise Disconnected() from exc
        except TimeoutError as exc:
            raise Timeout(f"no part of the body arrived for {SILENCE:.0f} seconds") from exc
        return b""
