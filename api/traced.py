"""A span for each request, under its route's pattern, never under its path. It ends when the
answer's head is sent, as the metric does: a stream would last an hour."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.metrics import METHODS
from promptmill.traces import Traces


class Traced:
    """Continues the trace that the caller names by `traceparent` (W3C Trace Context)."""

    def __init__(self, app: ASGIApp, *, traces: Traces) -> None:
        self._app = app
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        traceparent = Headers(scope=scope).get("traceparent", "")
        with self._traces.request(method, traceparent) as answered:

            async def traced(message: Message) -> None:
                if message["type"] == "http.response.start":
                    answered(getattr(scope.get("route"), "path", None), message["status"])
                await send(message)

            await self._app(scope, receive, traced)
