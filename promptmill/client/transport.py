"""HTTP to one farm: authorization, retries with Retry-After, and error bodies turned into
`promptmill.errors` classes. Knows no endpoint."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from promptmill import errors
from promptmill.client.sources import Body

Params = Mapping[str, str | int | float | bool | Sequence[str | int | float | bool]]

_PASSING = frozenset({429, 502, 503, 504})
_LONGEST_WAIT = 30.0  # seconds, whatever Retry-After says
_KNOCK = 0.5  # seconds at most between two tries to reach a farm that never answered
_BREAKS = 8  # times that a request may break on its way
_UNHEARD = (httpx.ConnectError, httpx.ConnectTimeout)


def _classes(root: type[errors.Error]) -> Iterator[type[errors.Error]]:
    yield root
    for child in root.__subclasses__():
        yield from _classes(child)


_BY_CODE = {cls.code: cls for cls in reversed(list(_classes(errors.Error)))}
_BY_STATUS = {
    400: errors.BadRequest,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.TooLarge,
    415: errors.UnsupportedMedia,
    422: errors.BadRequest,
    429: errors.LimitExceeded,
    503: errors.Unavailable,
}


def error_of(response: httpx.Response) -> errors.Error:
    """The error that a response of status 400 or above stands for. Its body is read."""
    try:
        detail = response.json()["error"]
        message, code = str(detail["message"]), str(detail.get("code"))
    except (ValueError, KeyError, TypeError, AttributeError):
        detail = {}
        message = f"{response.request.url.path} answered {response.status_code}"
        message, code = f"{message} {response.reason_phrase}".strip(), ""
    kind = _BY_CODE.get(code) or _BY_STATUS.get(response.status_code, errors.Internal)
    error = kind(
        message,
        param=detail.get("param"),
        line=detail.get("line"),
        retry_after=_retry_after(response),
    )
    if code:
        error.code = code
    error.retry = error.retry or response.status_code in _PASSING
    return error


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    params: Params | None
    json: Any
    body: Body | None
    headers: Mapping[str, str]
    form: Mapping[str, str] | None = None
    file: tuple[str, bytes] | None = None

    def options(self) -> dict[str, Any]:
        """What httpx takes; a body is opened anew."""
        if self.file is not None:
            return {"data": self.form, "files": {"file": self.file}, "headers": self.headers}
        if self.body is None:
            return {"params": self.params, "headers": self.headers, "json": self.json}
        return {
            "params": self.params,
            "headers": {**self.headers, **self.body.headers},
            "content": self.body.open(),
            "timeout": httpx.Timeout(300.0, connect=5.0),
        }


class Transport:
    """One farm's HTTP. Thread-safe.

    patience: seconds for which a farm that was reached before may be out of reach or busy;
    greeting: the same for a farm that never answered; starting: told its URL, says whether
    it is being started, and so gets the patience all the same.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None,
        *,
        patience: float = 90.0,
        greeting: float = 2.0,
        starting: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.url = url.rstrip("/")
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise errors.SettingInvalid(
                f"PROMPTMILL_URL must start with http:// or https://, not {url!r}"
            )
        self._patience, self._greeting, self._starting = patience, greeting, starting
        self._met = False
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=16)
        timeout = httpx.Timeout(60.0, connect=5.0)
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=timeout, limits=limits
        )
        self._plain = httpx.Client(timeout=timeout, limits=limits, follow_redirects=True)

    def close(self) -> None:
        self._http.close()
        self._plain.close()

    def get(self, path: str, *, params: Params | None = None) -> Any:
        """The JSON answer of a GET."""
        return self.call("GET", path, params=params).json()

    def pages(self, path: str, *, params: Params | None = None) -> Iterator[Mapping[str, Any]]:
        """The things of a list, page by page."""
        query = dict(params or {})
        while True:
            page = self.get(path, params=query)
            yield from page["data"]
            if not page["has_more"] or not page["data"]:
                return
            query["after"] = str(page["last_id"])

    def post(self, path: str, *, json: Any = None, repeatable: bool = True) -> Any:
        """The JSON answer of a POST. repeatable: sent again after a lost reply."""
        return self.call("POST", path, json=json, repeatable=repeatable).json()

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: Any = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        file: tuple[str, bytes] | None = None,
        repeatable: bool = True,
    ) -> httpx.Response:
        """Sends a request until it is answered for good, its body from the start each time.
        Raises the answer's `errors.Error`, or `errors.Unavailable`. repeatable: also after
        it broke on its way, when it may have been heard."""
        request = _Request(method, path, params, json, body, headers or {}, form, file)
        waited, breaks = 0.0, 0
        for attempt in itertools.count():
            try:
                return self._once(request)
            except errors.Error as exc:
                breaks += exc.__cause__ is not None and not isinstance(exc.__cause__, _UNHEARD)
                wait = _wait(exc, attempt)
                wait = wait if self._met else min(wait, _KNOCK)
                late = waited + wait > self._wait_at_most()
                if not exc.retry or late or breaks > repeatable * _BREAKS:
                    raise
            waited += wait
            time.sleep(wait)
        raise AssertionError("unreachable")

    def _wait_at_most(self) -> float:
        known = self._met or self._starting(self.url)
        return self._patience if known else self._greeting

    def _once(self, request: _Request) -> httpx.Response:
        try:
            response = self._http.request(request.method, request.path, **request.options())
        except _UNHEARD as exc:
            raise self._unreachable(exc) from exc
        except httpx.TransportError as exc:
            self._met = True
            raise self._unreachable(exc) from exc
        self._met = True
        if response.status_code >= 400:
            raise error_of(response)
        return response

    def _unreachable(self, exc: Exception) -> errors.Error:
        return errors.Unavailable(
            f"no farm answers at {self.url} ({str(exc) or type(exc).__name__}): start one with "
            "`promptmill up`, or set PROMPTMILL_URL"
        )

    @contextmanager
    def stream(self, path: str, *, params: Params | None = None) -> Iterator[httpx.Response]:
        """A GET whose answer is read as it comes. `path` may be a link to another host: it
        gets no credentials. Raises `errors.Error`; no retries."""
        http = self._http if self._is_ours(path) else self._plain
        try:
            with http.stream("GET", path, params=params, follow_redirects=True) as response:
                if response.status_code >= 400:
                    response.read()
                    raise error_of(response)
                yield response
        except httpx.TransportError as exc:
            raise self._unreachable(exc) from exc

    def _is_ours(self, path: str) -> bool:
        return path.startswith("/") or urlsplit(path)[:2] == urlsplit(self.url)[:2]


def _wait(error: errors.Error, attempt: int) -> float:
    if error.retry_after is not None:
        return min(error.retry_after, _LONGEST_WAIT) + random.uniform(0, 0.2)
    return min(0.1 * 2.0 ** min(attempt, 6), 5.0) * random.uniform(0.75, 1.25)
