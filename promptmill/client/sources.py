"""Where rows come from, as a request body that can be sent again from its start: files,
streams, prompts, dictionaries. Knows no endpoint and no network."""

from __future__ import annotations

import io
import json
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from promptmill import errors
from promptmill.client import frames

Rows = str | Path | IO[bytes] | Iterable[str | Mapping[str, Any]] | Mapping[str, Any] | frames.Table

CHUNK = 256 * 1024
GZIP = b"\x1f\x8b"  # what it begins with
ERROR_FIELD = "_error"  # of a row of failures.jsonl: what went wrong; never sent
TYPES = {
    "jsonl": "application/x-ndjson",
    "csv": "text/csv",
    "txt": "text/plain; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "json": "application/json",
}
_SUFFIXES = {".ndjson": "jsonl", ".text": "txt", ".pq": "parquet"}


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a submission. `open` starts it anew; size: bytes, where known."""

    open: Callable[[], Iterator[bytes]]
    format: str
    gzipped: bool = False
    size: int | None = None
    headers: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        if self.format not in TYPES:
            raise errors.BadRequest(f"unknown format {self.format!r}: one of {', '.join(TYPES)}")
        headers = {"content-type": TYPES[self.format]}
        if self.gzipped:
            headers["content-encoding"] = "gzip"
        object.__setattr__(self, "headers", headers)

    def counted(self, sent: Callable[[int], None]) -> Body:
        """The same body; `sent` is told the bytes sent so far, from 0 again when resent."""

        def opened() -> Iterator[bytes]:
            total = 0
            for chunk in self.open():
                yield chunk
                total += len(chunk)
                sent(total)

        return Body(opened, self.format, self.gzipped, self.size)


def kind_of(name: str, head: bytes, format: str | None) -> tuple[str, bool]:
    """(format, gzipped) of rows: as `format` says, else their file's name, else their first
    bytes. Raises `errors.BadRequest`."""
    return format or _by_suffix(name) or sniff(head), head.startswith(GZIP)


def _by_suffix(name: str) -> str | None:
    """None when it tells nothing."""
    suffix = Path(name.lower().removesuffix(".gz")).suffix
    if suffix == ".tsv":
        raise _tabs()
    found = _SUFFIXES.get(suffix, suffix.removeprefix("."))
    return found if found in TYPES else None


def _tabs() -> errors.BadRequest:
    return errors.BadRequest("columns between tabs are not read: save them as CSV, with commas")


def body(rows: Rows, *, format: str | None = None) -> Body:
    """A body of `rows`: a path, a binary file object, prompts and dictionaries (a list, or an
    iterator that is spooled to disk as it is sent), a table of pandas, polars or pyarrow
    whose columns are fields, or one dictionary: a document like `{"template": …}`. Raises
    `errors.BadRequest`."""
    if isinstance(rows, (str, Path)):
        return from_path(Path(rows), format=format)
    if hasattr(rows, "read"):
        file = cast("IO[bytes]", rows)
        return from_stream(file, format=format, name=str(getattr(rows, "name", "")))
    table = frames.records(rows)
    if table is not None:
        return Body(lambda: _chunks(map(_line, table())), "jsonl")
    if isinstance(rows, Mapping):
        document = json.dumps(rows, ensure_ascii=False, default=frames.plain).encode()
        return Body(lambda: iter((document,)), "json", size=len(document))
    prompts = cast("Iterable[str | Mapping[str, Any]]", rows)
    if isinstance(prompts, Sequence):
        return Body(lambda: _chunks(map(_line, prompts)), "jsonl")
    return Body(Spool(_chunks(map(_line, prompts))).open, "jsonl")


def from_path(path: Path, *, format: str | None = None) -> Body:
    """A file of rows; its suffix, `format` or else its first bytes say which kind."""
    try:
        with path.open("rb") as file:
            head = file.read(CHUNK)
        size = path.stat().st_size
    except OSError as exc:
        raise errors.BadRequest(f"cannot read {path}: {exc.strerror or exc}") from exc
    kind, gzipped = kind_of(path.name, head, format)

    def opened() -> Iterator[bytes]:
        with path.open("rb") as file:
            yield from _without_errors(file) if kind == "jsonl" and not gzipped else _read(file)

    return Body(opened, kind, gzipped, size)


def from_stream(file: IO[bytes], *, format: str | None = None, name: str = "") -> Body:
    """A binary stream, spooled to disk as it is sent so that it can be sent again."""
    spool = Spool(_read(file))
    head = spool.peek()
    kind, gzipped = kind_of(name, head, format)
    if kind == "jsonl" and not gzipped:
        return Body(lambda: _without_errors(_lines(spool.open())), kind)
    return Body(spool.open, kind, gzipped)


def sniff(head: bytes) -> str:
    """The format that the first bytes look like: parquet, json lines, CSV with a column
    named prompt, else text. Raises `errors.BadRequest` for such columns between tabs, and for
    a gzip that is none."""
    if head.startswith(GZIP):
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, CHUNK)
        except zlib.error as exc:
            raise errors.BadRequest(f"the gzip is damaged: {exc}") from exc
    if head.startswith(b"PAR1"):
        return "parquet"
    first = head.removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n", 1)[0]
    if first.startswith(b"{"):
        return "jsonl"
    if b"\t" in first and b"prompt" in _names(first, b"\t"):
        raise _tabs()
    return "csv" if b"prompt" in _names(first, b",") else "txt"


def _names(header: bytes, separator: bytes) -> list[bytes]:
    return [cell.strip(b' "\r').lower() for cell in header.split(separator)]


def with_parameters(document: Body, given: Mapping[str, Any]) -> Body:
    """A JSON document that says them, too: such a body takes no query. What is no JSON object stays
    as it is, for the farm to say what is wrong with it. Raises `errors.BadRequest` for what the
    document says already."""
    data = b"".join(document.open())
    try:
        told = json.loads(zlib.decompress(data, wbits=31) if document.gzipped else data)
    except (ValueError, zlib.error):
        return document
    if not isinstance(told, dict):
        return document
    for name in given:
        if name in told:
            raise errors.BadRequest(f"{name} is given twice, in the document, too", param=name)
    whole: dict[str, Any] = {**told, **given}
    return body(whole)


class Spool:
    """An iterator of bytes that can be read again from its start: what was read once lies
    in a temporary file (in memory up to 8 MB). For one reader at a time."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._seen = tempfile.SpooledTemporaryFile(max_size=8 << 20)  # noqa: SIM115
        self._length = 0
        weakref.finalize(self, self._seen.close)

    def peek(self) -> bytes:
        """The first chunk, or nothing at the end."""
        return next(self.open(), b"")

    def open(self) -> Iterator[bytes]:
        position = 0
        while position < self._length:
            self._seen.seek(position)
            chunk = self._seen.read(min(CHUNK, self._length - position))
            position += len(chunk)
            yield chunk
        for chunk in self._chunks:
            self._seen.seek(self._length)
            self._seen.write(chunk)
            self._length += len(chunk)
            yield chunk


def _read(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def _line(row: str | Mapping[str, Any]) -> bytes:
    if isinstance(row, str):
        row = {"prompt": row}
    if not isinstance(row, Mapping):
        raise errors.BadRequest(f"a row is a prompt or a dictionary, not {type(row).__name__}")
    kept = {name: value for name, value in row.items() if name != ERROR_FIELD}
    text = json.dumps(kept, ensure_ascii=False, separators=(",", ":"), default=frames.plain)
    return text.encode() + b"\n"


def _chunks(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines gathered into chunks of about CHUNK bytes."""
    gathered = io.BytesIO()
    for line in lines:
        gathered.write(line)
        if gathered.tell() >= CHUNK:
            yield gathered.getvalue()
            gathered = io.BytesIO()
    if gathered.tell():
        yield gathered.getvalue()


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line + b"\n" for line in whole)
    if rest:
        yield rest


def _without_errors(lines: Iterable[bytes]) -> Iterator[bytes]:
    """JSON lines without the error that `download` added to a failed row."""
    marker = f'"{ERROR_FIELD}"'.encode()
    return _chunks(_without_error(line) if marker in line else line for line in lines)


def _without_error(line: bytes) -> bytes:
    try:
        row = json.loads(line)
    except ValueError:  # the farm says what is wrong with it, and where
        return line
    return _line(row) if isinstance(row, dict) else line
