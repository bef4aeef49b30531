"""The way in: whose key a request brings is looked up before a byte of its body is read, and
so many requests of one key are worked on at once, so that the threads are not all one tenant's."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi.security.utils import get_authorization_scheme_param
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import response
from api.farm import Farm
from promptmill import errors
from promptmill.store import tenants

AT_ONCE = 8  # requests of one key; this process has five times as many threads for all
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Doors:
    """A request to `/v1/` that writes and has no key goes no further. slow: paths on which a
    POST waits for long outside of threads, or has places of its own: these are not counted."""

    def __init__(self, app: ASGIApp, *, slow: re.Pattern[str]) -> None:
        self._app = app
        self._slow = slow
        self._places: dict[str, _Places] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        farm: Farm = scope["app"].state.farm
        scheme, key = get_authorization_scheme_param(Headers(scope=scope).get("authorization"))
        if farm.settings.auth == "off" or (scheme.lower() != "bearer" and scope["method"] in SAFE):
            await self._app(scope, receive, send)
            return
        async with self._place(key) as leave:
            try:
                caller = await anyio.to_thread.run_sync(tenants.authenticate, farm.db, key)
                if caller is None and scope["method"] not in SAFE:
                    raise errors.Unauthorized()
            except errors.Error as error:
                await response(error)(scope, receive, send)
                return
            scope.setdefault("state", {})["caller"] = caller
            if scope["method"] == "POST" and self._slow.fullmatch(scope["path"]):
                leave()

            async def leaving(message: Message) -> None:
                leave()  # what is sent from here on waits for the client
                await send(message)

            await self._app(scope, receive, leaving)

    @asynccontextmanager
    async def _place(self, key: str) -> AsyncIterator[Callable[[], None]]:
        """One of the key's places, until the block ends or what it gives is called."""
        places = self._places.setdefault(key, _Places())
        places.users += 1
        left = True

        def leave() -> None:
            nonlocal left
            if not left:
                left = True
                places.free.release()

        try:
            await places.free.acquire()
            left = False
            yield leave
        finally:
            leave()
            places.users -= 1
            if not places.users:
                del self._places[key]


class _Places:
    def __init__(self) -> None:
        self.free = asyncio.Semaphore(AT_ONCE)
        self.users = 0  # those inside and those that wait
