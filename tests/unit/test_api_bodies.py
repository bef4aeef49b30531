"""Uploads: no tenant takes every place, and a body that comes drop by drop is refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import cast

import anyio
import anyio.to_thread
import pytest
from fastapi import Request

from api import arrival, bodies, feed
from api.bodies import Chunks, Uploads
from api.errors import Timeout
from api.farm import Farm


class Sender:
    """What `Chunks` sees of a request: a byte every `pause` seconds. told: its length is."""

    def __init__(self, count: int, pause: float, size: int = 1, *, told: bool = False) -> None:
        self.headers = {"content-length": str(count * size)} if told else {}
        self._count, self._pause, self._size = count, pause, size

    async def stream(self) -> AsyncIterator[bytes]:
        for _ in range(self._count):
            await asyncio.sleep(self._pause)
            yield b"x" * self._size


def received(sender: Sender) -> int:
    async def main() -> int:
        chunks = Chunks(cast(Request, sender), limit=1_000_000)
        await chunks.ahead()
        return await anyio.to_thread.run_sync(lambda: sum(map(len, chunks)))

    return anyio.run(main)


@pytest.mark.parametrize("told", [False, True])
def test_a_body_that_drips_is_refused(monkeypatch: pytest.MonkeyPatch, told: bool) -> None:
    monkeypatch.setattr(arrival, "SILENCE", 2.0)
    with pytest.raises(Timeout, match="less than 1000 bytes"):
        received(Sender(100, 0.1, told=told))


def test_a_small_body_is_there_before_a_thread_reads_it() -> None:
    async def main() -> list[bytes]:
        chunks = Chunks(cast(Request, Sender(3, 0.0, told=True)), limit=100)
        await chunks.ahead()
        return list(chunks)  # from here it could wait for no more

    assert anyio.run(main) == [b"x"] * 3


def test_a_large_body_is_not_taken_before_somebody_reads_it() -> None:
    async def main() -> int:
        sender = Sender(3, 0.0, size=bodies.SMALL, told=True)
        chunks = Chunks(cast(Request, sender), limit=1_000_000)
        await chunks.ahead()
        assert not chunks._ahead
        return await anyio.to_thread.run_sync(lambda: sum(map(len, chunks)))

    assert anyio.run(main) == 3 * bodies.SMALL


def test_a_slow_body_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrival, "SILENCE", 2.0)
    assert received(Sender(10, 0.25, size=5000)) == 50_000


def test_the_streams_of_one_tenant_take_none_of_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "STREAMS", 2)
    feeds = feed.Feeds(cast(Farm, None))
    with feeds.place(1), feeds.place(1), feeds.place(2), pytest.raises(feed.TooManyStreams):
        feeds.place(1).__enter__()
    with feeds.place(1):
        pass


def test_a_tenant_that_fills_its_places_keeps_no_other_waiting() -> None:
    release, began = threading.Event(), threading.Semaphore(0)

    def hold() -> None:
        began.release()
        release.wait(30)

    async def main() -> str:
        uploads = Uploads(places=4, own=2)
        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(uploads.run, 1, hold)
            for _ in range(2):
                assert await anyio.to_thread.run_sync(lambda: began.acquire(timeout=10))
            try:
                with anyio.fail_after(10):
                    return await uploads.run(2, lambda: "taken")
            finally:
                release.set()

    assert anyio.run(main) == "taken"
