"""Segments: up to 1,024 items of a lane as columns of JSON under zstd, a column that never
changes kept as one value; and the blocks of `row_map`, which say where in a job of several
lanes an image stands. Knows no database."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from operator import attrgetter, sub
from typing import Any

import orjson
import zstandard

from promptmill import errors
from promptmill.jobs import ITEM_FIELDS, Item

CODEC = 1
_HEAD = struct.Struct(">Q")  # the first item's index, readable without decompressing
_INDEX = ITEM_FIELDS.index("index")
_ALONE = (str, type(None))  # equal to nothing of another type
_VALUES = attrgetter(*ITEM_FIELDS)
_LEVEL = 3
_MAX_BYTES = 1 << 31


class Columns(Sequence[Item]):
    """A decoded segment: items are made when asked for. `size`: bytes of its JSON."""

    def __init__(self, count: int, columns: Sequence[Sequence[Any]], size: int) -> None:
        self._count = count
        self._columns = columns
        self.size = size

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(self._count))]
        if not -self._count <= at < self._count:
            raise IndexError(at)
        return Item(*(column[at % self._count] for column in self._columns))

    def index_of(self, at: int) -> int:
        """The job's index of item `at`, without making the item."""
        return int(self._columns[_INDEX][at])

    def field(self, name: str) -> Iterable[Any]:
        """The values of one field of the items; a single one where all have the same."""
        column = self._columns[ITEM_FIELDS.index(name)]
        return [column.value] if isinstance(column, _Constant) else column

    def __iter__(self) -> Iterator[Item]:
        return map(Item, *(_whole(column, self._count) for column in self._columns))


class _Constant(Sequence[Any]):
    """A column of one value."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __len__(self) -> int:
        return 1

    def __getitem__(self, at: Any) -> Any:
        return self.value


def _whole(column: Sequence[Any], count: int) -> Iterable[Any]:
    return repeat(column.value, count) if isinstance(column, _Constant) else column


def encode(items: Sequence[Item]) -> bytes:
    """Items of one lane, in order, at least one. Raises `errors.BadRequest` for text that
    is not valid Unicode."""
    return encode_rows(list(map(as_row, items)))


def as_row(item: Item) -> tuple[Any, ...]:
    """The fields of an item, in their order."""
    found: tuple[Any, ...] = _VALUES(item)
    return found


def encode_rows(rows: Sequence[tuple[Any, ...]]) -> bytes:
    """The same of items that are given as tuples of their fields, in the order of `Item`."""
    columns: dict[str, Sequence[Any]] = {}
    constants: dict[str, Any] = {}
    for name, values in zip(ITEM_FIELDS, zip(*rows, strict=True), strict=True):
        if name != "index" and _constant(values):
            constants[name] = values[0]
        else:
            columns[name] = values
    first = columns["index"][0]
    columns["index"] = _steps(columns["index"])
    body = {"count": len(rows), "constants": constants, "columns": columns}
    try:
        raw = orjson.dumps(body)
    except TypeError as error:
        raise errors.BadRequest(f"an item cannot be kept as JSON: {error}") from error
    return _HEAD.pack(first) + zstandard.ZstdCompressor(level=_LEVEL).compress(raw)


def _constant(values: Sequence[Any]) -> bool:
    first = values[0]
    if values[-1] != first or values.count(first) < len(values):
        return False
    if type(first) in _ALONE:
        return True
    if len(set(map(type, values))) > 1:
        return False
    # Python holds {"a": 1} and {"a": true} equal; JSON does not.
    return not isinstance(first, Mapping) or not first or len(set(map(repr, values))) == 1


def _steps(values: Sequence[int]) -> list[int]:
    return [values[0], *map(sub, values[1:], values)]


def _sums(steps: Sequence[int]) -> list[int]:
    total, values = 0, []
    for step in steps:
        total += step
        values.append(total)
    return values


def first_index(payload: bytes) -> int:
    """The index of the first item, without decompressing."""
    return int(_HEAD.unpack_from(payload)[0])


def columns(payload: bytes) -> Columns:
    """The inverse of `encode`, lazily. Raises `errors.Internal` for damaged bytes."""
    try:
        packed = payload[_HEAD.size :]
        raw = zstandard.ZstdDecompressor().decompress(packed, max_output_size=_MAX_BYTES)
        body = orjson.loads(raw)
    except (zstandard.ZstdError, orjson.JSONDecodeError) as error:
        raise errors.Internal(f"a segment is damaged: {error}") from error
    varying = body["columns"]
    varying["index"] = _sums(varying["index"])
    held = [
        varying[name] if name in varying else _Constant(body["constants"][name])
        for name in ITEM_FIELDS
    ]
    return Columns(body["count"], held, len(raw))


def decode(payload: bytes) -> list[Item]:
    """The items that `encode` was given."""
    return list(columns(payload))


def encode_map(places: Sequence[tuple[int, int]]) -> bytes:
    """(lane number, position) of consecutive images. Positions are kept as the step from
    the last one of the same lane, so that a block compresses to almost nothing."""
    last: dict[int, int] = {}
    steps = []
    for lane, position in places:
        steps.append(position - last.get(lane, 0))
        last[lane] = position
    lanes = bytes(lane for lane, _ in places)
    raw = lanes + struct.pack(f"<{len(steps)}i", *steps)
    return zstandard.ZstdCompressor(level=_LEVEL).compress(raw)


def decode_map(payload: bytes) -> list[tuple[int, int]]:
    """The inverse of `encode_map`."""
    try:
        raw = zstandard.ZstdDecompressor().decompress(payload, max_output_size=_MAX_BYTES)
    except zstandard.ZstdError as error:
        raise errors.Internal(f"a row map is damaged: {error}") from error
    count = len(raw) // 5
    last: dict[int, int] = {}
    places = []
    for lane, step in zip(raw[:count], struct.unpack(f"<{count}i", raw[count:]), strict=True):
        last[lane] = last.get(lane, 0) + step
        places.append((lane, last[lane]))
    return places
