"""The body as bytes: metered, decompressed and cut into lines, all of it in bounded
memory. Knows nothing of rows."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from promptmill import errors

PIECE = 1 << 18  # bytes; no step holds more than one piece and one line
GZIP_MAGIC = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"
EMPTY_LINES = 1_000_000  # a few bytes of gzip hold as many as one likes, and each costs time
EMPTY_MEMBERS = 1_000  # of a gzip file


@dataclass(slots=True)
class Progress:
    """When the last bytes arrived; an upload that stands still is not kept alive."""

    at: float = field(default_factory=time.monotonic)

    def touch(self) -> None:
        self.at = time.monotonic()

    def silent(self) -> float:
        return time.monotonic() - self.at


def pieces(chunks: Iterable[bytes], *, limit: int, progress: Progress) -> Iterator[bytes]:
    """The chunks, none longer than PIECE. Raises `errors.TooLarge` past `limit` bytes."""
    total = 0
    for chunk in chunks:
        progress.touch()
        total += len(chunk)
        if total > limit:
            raise errors.TooLarge(f"the body is larger than {limit} bytes", param="body")
        if len(chunk) <= PIECE:
            if chunk:
                yield bytes(chunk)
            continue
        view = memoryview(chunk)
        for start in range(0, len(view), PIECE):
            yield bytes(view[start : start + PIECE])


def plain(chunks: Iterator[bytes], *, encoding: str, limit: int) -> Iterator[bytes]:
    """Decompresses gzip, known by `encoding` or by its first two bytes. Raises
    `errors.BadRow` when it is damaged or ends early, `errors.TooLarge` past `limit`
    decompressed bytes, `errors.UnsupportedMedia` for another encoding."""
    kind = encoding.strip().lower()
    if kind not in ("", "identity", "gzip", "x-gzip"):
        raise errors.UnsupportedMedia(f"content encoding {encoding!r} is not accepted; use gzip")
    start = b""
    while len(start) < len(GZIP_MAGIC):
        chunk = next(chunks, None)
        if chunk is None:
            break
        start += chunk
    if start[:2] == GZIP_MAGIC:
        yield from _gunzip(start, chunks, limit=limit)
        return
    if kind in ("gzip", "x-gzip") and start:
        raise errors.BadRow("the content encoding is gzip, the body is not", param="body")
    if start:
        yield start
    yield from chunks


def _gunzip(start: bytes, chunks: Iterator[bytes], *, limit: int) -> Iterator[bytes]:
    total = empty = made = 0
    stream = zlib.decompressobj(wbits=31)
    data: bytes | None = start
    while data is not None:
        while data:
            if stream.eof:  # gzip files may be concatenated
                stream, made = zlib.decompressobj(wbits=31), 0
            try:
                out = stream.decompress(data, PIECE)
            except zlib.error as error:
                raise errors.BadRow("the gzip stream is damaged", param="body") from error
            data = stream.unused_data if stream.eof else stream.unconsumed_tail
            total, made = total + len(out), made + len(out)
            empty += stream.eof and not made
            if empty > EMPTY_MEMBERS:
                raise errors.BadRow("the gzip stream has too many empty parts", param="body")
            if total > limit:
                raise errors.TooLarge(
                    f"the decompressed body is larger than {limit} bytes", param="body"
                )
            if out:
                yield out
        data = next(chunks, None)
    if not stream.eof:
        raise errors.BadRow("the gzip stream ends early", param="body")


def lines(chunks: Iterable[bytes], *, limit: int) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line without its newline); a byte order mark at the start is
    dropped. Raises `errors.TooLarge` with the line as soon as it is over `limit` bytes, or
    one too many is empty; an error of `chunks` gets the number of the line it broke."""
    number, empty = 1, 0
    tail = bytearray()
    try:
        for chunk in _without_bom(chunks):
            parts = chunk.split(b"\n")
            if len(parts) > 1:
                tail += parts[0]
                parts[0] = bytes(tail)
                tail = bytearray(parts.pop())
                for part in parts:
                    if len(part) > limit:
                        raise _too_long(number, limit)
                    if not part or part.isspace():
                        empty += 1
                        if empty > EMPTY_LINES:
                            raise _too_empty(number)
                    yield number, part
                    number += 1
            else:
                tail += chunk
            if len(tail) > limit:
                raise _too_long(number, limit)
    except errors.Error as error:
        error.line = error.line or number
        raise
    if tail:
        yield number, bytes(tail)


def _too_long(number: int, limit: int) -> errors.TooLarge:
    return errors.TooLarge(f"the line is longer than {limit} bytes", param="line", line=number)


def _too_empty(number: int) -> errors.TooLarge:
    return errors.TooLarge(f"more than {EMPTY_LINES:,} lines are empty", param="line", line=number)


def _without_bom(chunks: Iterable[bytes]) -> Iterator[bytes]:
    source = iter(chunks)
    start = b""
    for chunk in source:
        start += chunk
        if len(start) >= len(BOM):
            break
    start = start.removeprefix(BOM)
    if start:
        yield start
    yield from source
