"""Bodies that are not streamed: how large they may be, and how they must arrive."""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.arrival import Arrival
from api.errors import SAFE, Timeout, response
from promptmill import errors


class BodyLimit:
    """Refuses bodies over `limit` bytes (`of_form` to a path like `forms`), whether they say
    their length or not, and those that stop arriving, or drip. A body that is posted to a path
    like `streamed` sees to this itself."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        limit: int,
        streamed: re.Pattern[str],
        forms: re.Pattern[str],
        of_form: int,
    ) -> None:
        self._app = app
        self._limit, self._of_form = limit, of_form
        self._streamed, self._forms = streamed, forms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        posted = scope["type"] == "http" and scope["method"] == "POST"
        if scope["type"] != "http" or (posted and self._streamed.fullmatch(scope["path"])):
            await self._app(scope, receive, send)
            return
        limit = self._of_form if self._forms.fullmatch(scope["path"]) else self._limit
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdigit() and int(length) > limit:
            refused = errors.TooLarge(f"a body here has at most {limit} bytes")
            await response(refused)(scope, receive, send)
            return
        arrival, over = Arrival(limit), scope["method"] in SAFE

        async def counted() -> Message:
            nonlocal over
            if over:  # who asks waits for the client to go away
                return await receive()
            try:
                message = await arrival.waited(receive())
                over = not message.get("more_body", False)
                arrival.came(len(message.get("body", b"")))
            except (Timeout, errors.TooLarge) as refused:
                raise HTTPException(refused.status) from refused  # FastAPI hides any other
            return message

        await self._app(scope, counted, send)
