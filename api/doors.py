"""The way in: whose key a request brings is looked up before a byte of its body is read, and
so many requests of one key are worked on at once, so that the threads are not all its own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi.security.utils import get_authorization_scheme_param
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import SAFE, response
from api.farm import Farm
from promptmill import errors
from promptmill.store import tenants

AT_ONCE = 8  # requests of one key; this process has five times as many threads for all


def key_of(headers: Headers) -> str | None:
    scheme, key = get_authorization_scheme_param(headers.get("authorization"))
    return key if scheme.lower() == "bearer" else None


class Doors:
    """A request to `/v1/` that writes and has no key goes no further. A POST to a path like
    `streamed` has places of its own; one like `waiting` gives up its place when its body is
    there, since it then waits outside of threads."""

    def __init__(
        self, app: ASGIApp, *, streamed: re.Pattern[str], waiting: re.Pattern[str]
    ) -> None:
        self._app = app
        self._streamed, self._waiting = streamed, waiting
        self._places: dict[str, _Places] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        farm: Farm = scope["app"].state.farm
        key = key_of(Headers(scope=scope))
        if farm.settings.auth == "off" or (key is None and scope["method"] in SAFE):
            await self._app(scope, receive, send)
        elif key is None:
            await response(errors.Unauthorized())(scope, receive, send)
        else:
            async with self._place(key) as leave:
                try:
                    caller = await self._caller(farm, key, scope["method"])
                except errors.Error as error:
                    leave()
                    await response(error)(scope, receive, send)
                    return
                scope.setdefault("state", {})["caller"] = caller
                posted = scope["method"] == "POST"
                if posted and self._streamed.fullmatch(scope["path"]):
                    leave()
                waits = posted and self._waiting.fullmatch(scope["path"]) is not None

                async def received() -> Message:
                    message = await receive()
                    if waits and not message.get("more_body", False):
                        leave()
                    return message

                async def sent(message: Message) -> None:
                    leave()  # what is sent from here on waits for the client
                    await send(message)

                await self._app(scope, received, sent)

    async def _caller(self, farm: Farm, key: str, method: str) -> tenants.Caller | None:
        """None: whoever only reads may have a link instead. Raises `errors.Error`."""
        caller = await anyio.to_thread.run_sync(tenants.authenticate, farm.db, key)
        if caller is not None:
            farm.pacing.take(caller[0].id)
        elif method not in SAFE:
            raise errors.Unauthorized()
        return caller

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
