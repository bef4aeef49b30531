"""Answers with bytes that never change: whole or a range of them, conditional on their
sha256, or their headers alone. Knows no job and no tenant."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from api import errors as api_errors
from promptmill import errors
from promptmill.blobs import BlobStore

LARGE = 4_000_000  # bytes above which an answer is sent while it is read
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_TAG = re.compile(r'(?:W/)?("[^"]*")')


class RangeNotSatisfiable(errors.BadRequest):
    """The range begins behind the last byte."""

    status = 416
    code = "range_not_satisfiable"


@dataclass(frozen=True, slots=True)
class Content:
    """`bytes` bytes of an object, from `offset` on. filename: ASCII, no quotes."""

    key: str
    offset: int
    bytes: int
    sha256: str
    media_type: str
    filename: str


def answer(blobs: BlobStore, content: Content, request: Request) -> Response:
    """To a GET or HEAD with any of If-None-Match, Range and If-Range. Several ranges at once
    are answered with the whole. Raises `errors.NotFound` when the object is gone."""
    tag = f'"{content.sha256}"'
    headers = {
        "etag": tag,
        "cache-control": "private, max-age=31536000, immutable",
        "content-disposition": f'inline; filename="{content.filename}"',
        "accept-ranges": "bytes",
        "x-content-type-options": "nosniff",
    }
    if is_known(request, tag):
        return Response(status_code=304, headers=headers)
    if request.method == "HEAD":
        if blobs.head(content.key) is None:
            raise errors.NotFound(f"there is no object {content.key}")
        headers["content-length"] = str(content.bytes)
        return Response(headers=headers, media_type=content.media_type)
    if request.headers.get("if-range", tag) == tag and (asked := request.headers.get("range")):
        span = _span(asked, content.bytes)
        if span is not None:
            return _part(blobs, content, span, headers)
    return _sent(blobs, content, range(content.bytes), headers)


def _sent(blobs: BlobStore, content: Content, span: range, headers: Mapping[str, str]) -> Response:
    """The bytes of `span`, with the status that the headers tell."""
    status = 206 if "content-range" in headers else 200
    offset, kind = content.offset + span.start, content.media_type
    if len(span) > LARGE:
        pieces = blobs.stream(content.key, offset=offset, length=len(span))
        told = {**headers, "content-length": str(len(span))}
        return StreamingResponse(pieces, status, headers=told, media_type=kind)
    data = blobs.read(content.key, offset=offset, length=len(span))
    if len(data) != len(span) and status == 206:
        raise errors.NotFound("the object is shorter than its record says")
    return Response(data, status, headers=headers, media_type=kind)


def is_known(request: Request, tag: str) -> bool:
    """Whether the caller's If-None-Match names what it would get."""
    known = request.headers.get("if-none-match", "")
    return known.strip() == "*" or tag in _TAG.findall(known)


def _part(blobs: BlobStore, content: Content, span: range, headers: Mapping[str, str]) -> Response:
    if not span:
        told = {"content-range": f"bytes */{content.bytes}"}
        return api_errors.response(RangeNotSatisfiable(), told)
    told = {**headers, "content-range": f"bytes {span.start}-{span.stop - 1}/{content.bytes}"}
    return _sent(blobs, content, span, told)


def _span(asked: str, size: int) -> range | None:
    """The bytes of one range; empty when it begins past the end, None for what is no single
    range of bytes."""
    match = _RANGE.fullmatch(asked.strip())
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        return range(max(0, size - int(match[2])), size)
    first, last = int(match[1]), int(match[2] or size - 1)
    if match[2] and last < first:
        return None
    return range(first, min(last + 1, size)) if first < size else range(0)
