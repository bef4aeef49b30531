"""Exports: a job as a dataset, in shards of consecutive images. The records, the names of
files and the pure rules; knows no database and no object."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from promptmill import errors

SHARD_IMAGES: Final = 10_000  # at most, and unless the caller says fewer
SHARD_BYTES: Final = 96_000_000  # of pictures: a shard is made in memory
MAX_COLUMNS: Final = 256
TEXT, INTEGER, NUMBER, BOOLEAN = "string", "int64", "float64", "bool"
ABSENT: Final[Mapping[str, Any]] = {TEXT: "", INTEGER: -1, NUMBER: -1.0, BOOLEAN: False}
"""What stands in a column where a row has none: never a null."""

ITEM_COLUMNS: Final[Mapping[str, str]] = {
    "key": TEXT,
    "prompt": TEXT,
    "negative_prompt": TEXT,
    "seed": INTEGER,
    "width": INTEGER,
    "height": INTEGER,
    "steps": INTEGER,
    "guidance": NUMBER,
    "task": TEXT,
    "source": TEXT,
    "mask": TEXT,
    "strength": NUMBER,
    "lora": TEXT,
    "model": TEXT,
    "fingerprint": TEXT,
    "sha256": TEXT,
    "score": NUMBER,
    "below_min_score": BOOLEAN,
    "row": INTEGER,
    "sample": INTEGER,
    "custom_id": TEXT,
}
"""What every image has, as `blobs.tar.describe` makes it."""

_RESERVED = frozenset({*ITEM_COLUMNS, "image", "text", "file_name", "__key__", "__url__"})


class Format(enum.StrEnum):
    WEBDATASET = "webdataset"
    IMAGEFOLDER = "imagefolder"
    PARQUET = "parquet"

    @property
    def suffix(self) -> str:
        """Of the file of a shard; a folder of images travels as a tar."""
        return "parquet" if self is Format.PARQUET else "tar"


class State(enum.StrEnum):
    BUILDING = "building"
    COMPLETED = "completed"
    FAILED = "failed"


class Kind(enum.StrEnum):
    MAIN = "main"
    ADDENDUM = "addendum"  # images of planned ranges that were repaired later
    CARD = "card"  # README.md, the sample grid, the duplicates


class ShardState(enum.StrEnum):
    PLANNED = "planned"
    BUILDING = "building"
    SEALED = "sealed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Column:
    """A field of the submission's rows. name: in the dataset; field: in the rows, which
    differs where the name is taken; type: TEXT, INTEGER, NUMBER or BOOLEAN."""

    name: str
    field: str
    type: str


@dataclass(frozen=True, slots=True)
class File:
    """A file of a shard. key: of its object; sha256: hex."""

    name: str
    key: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Export:
    id: int
    public_id: str
    job_id: int
    tenant_id: int
    format: Format
    state: State
    shard_images: int
    columns: tuple[Column, ...] | None
    generation: int
    planned: int
    shards: int
    cards: int
    repairs: tuple[tuple[int, int, int], ...]  # (end, low, high)
    error: str | None
    created_at: float
    finished_at: float | None


@dataclass(frozen=True, slots=True)
class Shard:
    """Images `first` to `end` - 1 that ended in a generation of `low` + 1 to `high`. fence:
    a claim is worth something only while nobody claimed the shard after it."""

    export_id: int
    number: int
    kind: Kind
    first: int
    end: int
    low: int
    high: int
    state: ShardState
    fence: int = 0
    files: tuple[File, ...] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    sealed_at: float | None = None

    @property
    def name(self) -> str:
        return f"{self.number:05d}"


def data_name(shard: Shard, format: Format) -> str:
    return f"data/train-{shard.name}.{format.suffix}"


def failures_name(shard: Shard) -> str:
    return f"{shard.name}_failures.jsonl"


def stats_name(shard: Shard) -> str:
    """The commit marker: it is put after all other files of the shard."""
    return f"{shard.name}_stats.json"


class Schema:
    """Finds the columns that rows' metadata has, and a type for each that all values fit,
    whatever order they come in. Values of several kinds become JSON text."""

    def __init__(self) -> None:
        self._kinds: dict[str, str] = {}

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Raises `errors.BadRequest` for more than MAX_COLUMNS fields."""
        for row in rows:
            for name, value in row.items():
                self._see(name, value)
        if len(self._kinds) > MAX_COLUMNS:
            raise errors.BadRequest(
                f"the rows have more than {MAX_COLUMNS} different fields: that is no table"
            )

    def _see(self, name: str, value: Any) -> None:
        known, kind = self._kinds.get(name), _kind(value)
        if known is None:
            self._kinds[name] = kind
        elif kind and kind != known:
            numbers = {known, kind} == {INTEGER, NUMBER}
            self._kinds[name] = kind if not known else NUMBER if numbers else TEXT

    def columns(self) -> tuple[Column, ...]:
        """By name. A name that is taken, or that readers of datasets take for a path, gets
        an underscore."""
        taken = set(_RESERVED)
        found = []
        for field_, kind in sorted(self._kinds.items()):
            name = field_
            while name.casefold() in taken or name.endswith(("file_name", "file_names")):
                name += "_"
            taken.add(name.casefold())
            found.append(Column(name, field_, kind or TEXT))
        return tuple(found)


def _kind(value: Any) -> str:
    """Empty for null, which fits every type."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return INTEGER
    return NUMBER if isinstance(value, float) else TEXT


def values(columns: Sequence[Column], row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of one row, each of its type."""
    return {column.name: _fitting(row.get(column.field), column.type) for column in columns}


def _fitting(value: Any, type: str) -> Any:
    if value is None:
        return ABSENT[type]
    if type == NUMBER:
        return float(value)
    if type == TEXT and not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return value
