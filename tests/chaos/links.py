"""A wire that breaks on demand: a TCP proxy of our own before Redis, Postgres or S3. It
forwards bytes and understands none of them, but for one refusal in HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Self

PIECE = 64 * 1024
REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/xml\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


class Mood(Enum):
    """What a link does to the bytes that come."""

    PASS = "forwards them"
    HOLE = "keeps them, in both directions, until it recovers: late requests arrive late"
    MUTE = "forwards requests and swallows replies: what was asked for happens unseen"
    CUT = "ends every connection in the middle of its next reply"
    REFUSE = "answers each HTTP request with 503"


@dataclass(eq=False)
class Pair:
    """One connection of a client and the one made to the server for it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    spoilt: bool = False  # bytes were swallowed: it can never be made good

    def close(self) -> None:
        for writer in (self.client, self.server):
            with contextlib.suppress(Exception):
                writer.transport.abort()


@dataclass(eq=False)
class Link:
    """Listens on `port` of loopback and forwards to `target`, a port or the path of a unix
    socket, from a thread of its own. `turn` changes its mood at once."""

    target: int | str
    port: int = 0
    mood: Mood = Mood.PASS
    _pairs: set[Pair] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="link", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def turn(self, mood: Mood) -> None:
        asyncio.run_coroutine_threadsafe(self._turn(mood), self._loop).result(10)

    async def _open(self) -> None:
        self._passing = asyncio.Event()
        self._passing.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _turn(self, mood: Mood) -> None:
        self.mood = mood
        if mood is Mood.HOLE:
            self._passing.clear()
        else:
            self._passing.set()
        for pair in list(self._pairs):
            if pair.spoilt:
                pair.close()

    async def _end(self) -> None:
        self._server.close()
        for pair in list(self._pairs):
            pair.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._connect(reader, client)
        finally:
            self._tasks.discard(task)
            client.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        await self._passing.wait()
        if isinstance(self.target, str):
            replies, server = await asyncio.open_unix_connection(self.target)
        else:
            replies, server = await asyncio.open_connection("127.0.0.1", self.target)
        pair = Pair(client, server)
        self._pairs.add(pair)
        pumps = [
            asyncio.ensure_future(self._requests(pair, reader)),
            asyncio.ensure_future(self._replies(pair, replies)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._pairs.discard(pair)
            pair.close()

    async def _requests(self, pair: Pair, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(PIECE):
            await self._passing.wait()
            if self.mood is Mood.REFUSE:
                pair.client.write(REFUSAL)
                await pair.client.drain()
                return
            pair.server.write(data)
            await pair.server.drain()

    async def _replies(self, pair: Pair, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(PIECE):
            await self._passing.wait()
            if self.mood is Mood.MUTE or pair.spoilt:
                pair.spoilt = True
                continue
            if self.mood is Mood.CUT:
                pair.client.write(data[: len(data) // 2])
                await pair.client.drain()
                return
            pair.client.write(data)
            await pair.client.drain()
