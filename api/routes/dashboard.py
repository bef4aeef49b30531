"""The dashboard: one page and its few files, straight from the package. It uses the public
API only."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from fastapi import APIRouter, Request, Response

from promptmill import errors

router = APIRouter(include_in_schema=False)

_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
_FILES = {
    entry.name: entry.read_bytes()
    for entry in files("api").joinpath("dashboard").iterdir()
    if entry.name.rpartition(".")[2] in _TYPES
}
_ETAGS = {name: f'"{hashlib.sha256(data).hexdigest()[:32]}"' for name, data in _FILES.items()}
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


def _file(name: str, request: Request) -> Response:
    if name not in _FILES:
        raise errors.NotFound()
    headers = {**_HEADERS, "etag": _ETAGS[name]}
    if request.headers.get("if-none-match") == _ETAGS[name]:
        return Response(status_code=304, headers=headers)
    kind = _TYPES[name.rpartition(".")[2]]
    return Response(_FILES[name], media_type=kind, headers=headers)


@router.get("/")
def page(request: Request) -> Response:
    return _file("index.html", request)


@router.get("/favicon.ico")
def icon(request: Request) -> Response:
    return _file("favicon.svg", request)


@router.get("/dashboard/{name}")
def part(name: str, request: Request) -> Response:
    return _file(name, request)
