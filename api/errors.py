"""How errors leave the API: one renderer for the error tree, for requests that FastAPI
refuses and for what nobody expected; and the request id that every answer carries."""

from __future__ import annotations

import logging
import math
import re
import secrets
from collections.abc import Mapping

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from promptmill import errors

log = logging.getLogger("promptmill.api")

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})  # methods that change nothing
DEFAULT_RETRY_AFTER = 2.0  # seconds, where an error may be retried and names no time
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class MethodNotAllowed(errors.BadRequest):
    """This path does not know that method."""

    status = 405
    code = "method_not_allowed"


class Timeout(errors.BadRequest):
    """The body stopped arriving."""

    status = 408
    code = "request_timeout"
    retry = True


def response(error: errors.Error, headers: Mapping[str, str] | None = None) -> Response:
    """`error` in the envelope `{"error": {...}}`, with Retry-After where it may pass later."""
    answer = Response(
        orjson.dumps(error.body()), error.status, media_type="application/json", headers=headers
    )
    wait = error.retry_after
    if wait is None and error.retry:
        wait = DEFAULT_RETRY_AFTER
    if wait is not None:
        answer.headers["retry-after"] = str(max(1, math.ceil(wait)))
    if isinstance(error, errors.Unauthorized):
        answer.headers["www-authenticate"] = "Bearer"
    return answer


def from_validation(refused: RequestValidationError) -> errors.Error:
    """The first fault that FastAPI found, by the name of its parameter; the value given is
    not repeated."""
    fault = refused.errors()[0]
    names = [str(part) for part in fault["loc"][1:]]
    if fault["type"] == "json_invalid":
        return errors.BadRequest("the body is not valid JSON")
    param = ".".join(names) or None
    message = str(fault["msg"])
    return errors.BadRequest(f"{param}: {message}" if param else message, param=param)


def from_http(refused: HTTPException) -> errors.Error:
    """Starlette's own refusals: no such path, wrong method, a body over the limit."""
    kinds: dict[int, type[errors.Error]] = {
        404: errors.NotFound,
        405: MethodNotAllowed,
        408: Timeout,
        413: errors.TooLarge,
        415: errors.UnsupportedMedia,
    }
    return kinds.get(refused.status_code, errors.BadRequest)()


async def _render(request: Request, exc: Exception) -> Response:
    headers: Mapping[str, str] | None = None
    match exc:
        case errors.Error():
            error = exc
        case RequestValidationError():
            error = from_validation(exc)
        case HTTPException():
            error, headers = from_http(exc), exc.headers
        case _:
            raise exc
    if error.status >= 500:
        log.warning("%s %s: %s", request.method, request.url.path, error)
    return response(error, headers)


class RequestId:
    """The outermost layer: gives each request an id, and turns what nobody expected into
    a 500 that says nothing but that id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        name = given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
        begun = False

        async def stamped(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                MutableHeaders(scope=message)["x-request-id"] = name
            await send(message)

        try:
            await self._app(scope, receive, stamped)
        except Exception:
            log.exception("request %s failed: %s %s", name, scope["method"], scope["path"])
            if begun:
                raise
            error = errors.Internal(f"an internal error; the request id is {name}")
            await response(error)(scope, receive, stamped)


class NoNul:
    """Refuses a NUL character in a path or query: no name holds one, and no database takes
    one as text."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and ("\0" in scope["path"] or b"%00" in scope["query_string"]):
            refused = errors.BadRequest("the address holds a NUL character")
            await response(refused)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def install(app: FastAPI) -> None:
    """Every error of `app` leaves through `_render`."""
    for kind in (errors.Error, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _render)
