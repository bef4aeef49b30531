"""Checks whether a server can be reached. That of the storage writes, and anybody may ask for
it: its answer is believed for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import anyio
import anyio.to_thread

from promptmill import errors

PATIENCE = 5.0  # seconds for each check
BELIEVED = 5.0  # seconds for which the answer of a `Probe` stands


async def check(call: Callable[[], object]) -> str:
    """`ok`, or in one line what is wrong."""
    with anyio.move_on_after(PATIENCE):
        try:
            await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
        except errors.Error as error:
            return error.message
        return "ok"
    return f"no answer in {PATIENCE:.0f} seconds"


class Probe:
    """A check that runs once at a time and once in a while, whoever asks and however often.
    For one event loop."""

    def __init__(self, call: Callable[[], object], *, believed: float = BELIEVED) -> None:
        self._call = call
        self._believed = believed
        self._asked: asyncio.Task[str] | None = None
        self._until = 0.0

    async def __call__(self) -> str:
        """As `check`, at most `believed` seconds old."""
        if self._asked is None or (self._asked.done() and time.monotonic() >= self._until):
            self._asked = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asked)  # one who goes away takes it from nobody

    async def _ask(self) -> str:
        try:
            return await check(self._call)
        finally:
            self._until = time.monotonic() + self._believed

    async def close(self) -> None:
        if self._asked is not None:
            self._asked.cancel()
            await asyncio.gather(self._asked, return_exceptions=True)
