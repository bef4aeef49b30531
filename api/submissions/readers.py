"""Readers of line-shaped bodies: byte chunks in, rows out, one at a time. They know the
syntax (JSON lines, CSV, plain text) and nothing of what the fields mean."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import orjson

from api.submissions import chunks as bytestream
from promptmill import errors

Fields: TypeAlias = dict[str, Any]
Row: TypeAlias = tuple[int, Fields]  # (line from 1, fields by column)

MAX_DEPTH = 32  # of nested arrays and objects


def ndjson(chunks: Iterable[bytes], *, max_line: int) -> Iterator[Row]:
    """One JSON object a line; empty lines are skipped. Raises `errors.BadRow`."""
    loads = orjson.loads
    for number, line in bytestream.lines(chunks, limit=max_line):
        if not line:
            continue
        try:
            fields = loads(line)
        except orjson.JSONDecodeError as error:
            if not line.strip():
                continue
            raise errors.BadRow(
                f"not valid JSON: {error.msg} (column {error.colno})", line=number, param="line"
            ) from error
        if type(fields) is not dict:
            raise errors.BadRow("a row must be a JSON object", line=number, param="line")
        if b"\\u0000" in line:
            refuse_nul(fields, line=number)
        if line.count(b":") != len(fields):  # each key has one
            refuse_doubles(line, line=number)
        yield number, fields


def text(chunks: Iterable[bytes], *, max_line: int) -> Iterator[Row]:
    """One prompt a line, without the white space around it; empty lines are skipped. Raises
    `errors.BadRow` for a carriage return inside one, which is no end of a line."""
    for number, line in bytestream.lines(chunks, limit=max_line):
        prompt = _decode(line, number).strip()
        if "\r" in prompt:
            raise errors.BadRow(
                "the line holds a carriage return: end lines with a newline",
                line=number,
                param="line",
            )
        if prompt:
            yield number, {"prompt": prompt}


def csv_rows(chunks: Iterable[bytes], *, max_line: int, required: str) -> Iterator[Row]:
    """A header, then one row a record (quoted cells may hold newlines); `line` is where
    the record begins. Empty cells are left out. Raises `errors.BadRow`, at line 1 when
    the header lacks the column `required`."""
    source = _Records(chunks, max_line)
    records = csv.reader(source, strict=True)
    header: list[str] = []
    while True:
        begin = records.line_num + 1
        try:
            cells = next(records, None)
        except csv.Error as error:
            raise errors.BadRow(f"not valid CSV: {error}", line=begin, param="line") from error
        source.held = 0
        if cells is None:
            break
        if not cells:
            continue
        if not header:
            header = _header(cells, required, begin)
        elif len(cells) != len(header):
            raise errors.BadRow(
                f"the row has {len(cells)} cells, the header {len(header)}",
                line=begin,
                param="line",
            )
        else:
            yield begin, {k: v for k, v in zip(header, cells, strict=True) if v}
    if not header:
        raise errors.BadRow("the CSV has no header", line=1, param=required)


class _Records:
    """Decoded lines for the csv module; refuses a record that grows over the limit."""

    def __init__(self, chunks: Iterable[bytes], limit: int) -> None:
        self.lines = bytestream.lines(chunks, limit=limit)
        self.limit = limit
        self.held = 0  # bytes since the last complete record

    def __iter__(self) -> _Records:
        return self

    def __next__(self) -> str:
        number, line = next(self.lines)
        self.held += len(line)
        if self.held > self.limit:
            raise errors.TooLarge(
                f"the record is longer than {self.limit} bytes", line=number, param="line"
            )
        return _decode(line, number) + "\n"


def _header(cells: list[str], required: str, line: int) -> list[str]:
    names = [cell.strip() for cell in cells]
    if required not in names:
        known = ", ".join(names)[:200]
        hint = " (cells are separated by commas)" if len(names) == 1 and ";" in names[0] else ""
        raise errors.BadRequest(
            f"the CSV has no column {required!r}: it has {known}{hint}; "
            "name the column with map=prompt=COLUMN",
            line=line,
            param=required,
        )
    for name in names:
        if not name or names.count(name) > 1:
            raise errors.BadRequest(
                f"the header has two columns {name!r}" if name else "a column has no name",
                line=line,
                param=name or "line",
            )
    return names


def _decode(line: bytes, number: int) -> str:
    if b"\0" in line:
        raise errors.BadRow("the line holds a NUL byte", line=number, param="line")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise errors.BadRow(
            f"the line is not UTF-8 (byte {error.start + 1})", line=number, param="line"
        ) from error


def refuse_doubles(text: bytes | bytearray, *, line: int | None, param: str = "line") -> None:
    """Raises `errors.BadRow` if an object in `text`, which is JSON, has a key twice: of the
    two values one would be lost."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(found)
        if len(fields) != len(found):
            names = [name for name, _ in found]
            twice = next(name for name in names if names.count(name) > 1)
            place = twice[:100] if param == "line" else param
            raise errors.BadRow(f"{twice[:100]!r} is given twice", line=line, param=place)
        return fields

    try:
        json.loads(text, object_pairs_hook=pairs)
    except RecursionError:
        raise errors.BadRow(f"nested deeper than {MAX_DEPTH}", line=line, param=param) from None


def refuse_nul(value: Any, *, line: int | None, param: str = "line") -> None:
    """Raises `errors.BadRow` if a string inside `value` holds a NUL character, or if
    `value` is nested deeper than MAX_DEPTH."""
    _walk(value, line, param, MAX_DEPTH)


def _walk(value: Any, line: int | None, param: str, depth: int) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise errors.BadRow("a string holds a NUL character", line=line, param=param)
        return
    if not isinstance(value, dict | list):
        return
    if depth == 0:
        raise errors.BadRow(f"nested deeper than {MAX_DEPTH}", line=line, param=param)
    if isinstance(value, list):
        for inner in value:
            _walk(inner, line, param, depth - 1)
        return
    for key, inner in value.items():
        _walk(key, line, param, depth - 1)
        _walk(inner, line, key if param == "line" else param, depth - 1)
