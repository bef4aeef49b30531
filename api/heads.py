"""HEAD, wherever there is GET: what watches a server, and caches, ask by it."""

from __future__ import annotations

import anyio
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Heads:
    """Answers HEAD as GET is answered, without the body (RFC 9110, section 9.3.2), where no route
    does so itself. What would be streamed ends before its first piece."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD" or _is_routed(scope):
            await self._app(scope, receive, send)
            return

        asked: Scope = {**scope, "method": "GET"}
        ended = False

        async def sent(message: Message) -> None:
            nonlocal ended
            if message["type"] != "http.response.body":
                scope["route"] = asked.get("route")
                await send(message)
            elif not ended:
                ended = True
                await send({"type": "http.response.body"})
                if message.get("more_body", False):
                    work.cancel()

        with anyio.CancelScope() as work:
            await self._app(asked, receive, sent)


def _is_routed(scope: Scope) -> bool:
    routes = scope["app"].router.routes
    return any(route.matches(scope)[0] is Match.FULL for route in routes)
