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

from api import bodies
from api.bodies import Chunks, Uploads
from api.errors import Timeout


class Sender:
    """What `Chunks` sees of a request: a byte every `pause` seconds."""

    def __init__(self, count: int, pause: float, size: int = 1) -> None:
        self.headers: dict[str, str] = {}
        self._count, self._pause, self._size = count, pause, size

    async def stream(self) -> AsyncIterator[bytes]:
        for _ in range(self._count):
            await asyncio.sleep(self._pause)
            yield b"x" * self._size


def received(sender: Sender) -> int:
    def read() -> int:
        return sum(map(len, Chunks(cast(Request, sender), limit=1_000_000)))

    async def main() -> int:
        return await anyio.to_thread.run_sync(read)

    return anyio.run(main)


def test_a_body_that_drips_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SILENCE", 2.0)
    with pytest.raises(Timeout, match="less than 1000 bytes"):
        received(Sender(100, 0.1))


def test_a_slow_body_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SILENCE", 2.0)
    assert received(Sender(10, 0.25, size=5000)) == 50_000


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
