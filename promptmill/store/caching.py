"""What of the store never changes, kept in memory: decoded segments, map blocks, lanes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import ColumnElement, Connection, and_, bindparam, or_, select

from promptmill import errors, jobs, segments
from promptmill.records import Lane
from promptmill.store import rows
from promptmill.store.database import Database
from promptmill.tables import lanes as lane_table
from promptmill.tables import row_map
from promptmill.tables import segments as segment_table

_GROWTH: Final = 4  # a decoded segment takes about so many times the bytes of its JSON
_SMALL: Final = 300
_KEYS: Final = 50  # in one statement

_KEY: Final = [segment_table.c[name] for name in ("job_id", "lane", "number")]
_SEGMENTS: Final = select(*_KEY, segment_table.c.payload)
_SEGMENT: Final = _SEGMENTS.where(*(column == bindparam(column.name) for column in _KEY))
_LANES: Final = select(lane_table).where(lane_table.c.id.in_(bindparam("ids", expanding=True)))

SegmentKey = tuple[int, int, int]  # job id, lane number, segment number


class SegmentCache:
    """Least recently used goes first, when `max_bytes` are held. Thread-safe."""

    def __init__(self, max_bytes: int = 32 << 20) -> None:
        self._max = max_bytes
        self._held: OrderedDict[tuple[object, ...], tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: tuple[object, ...]) -> Any | None:
        with self._lock:
            found = self._held.get(key)
            if found is None:
                return None
            self._held.move_to_end(key)
            return found[0]

    def put(self, key: tuple[object, ...], value: Any, size: int) -> None:
        with self._lock:
            _, old = self._held.pop(key, (None, 0))
            self._held[key] = (value, size)
            self._bytes += size - old
            while self._bytes > self._max and len(self._held) > 1:
                _, (_, gone) = self._held.popitem(last=False)
                self._bytes -= gone

    @property
    def bytes(self) -> int:
        return self._bytes


_shared: WeakKeyDictionary[Database, SegmentCache] = WeakKeyDictionary()
_shared_lock = threading.Lock()


def of(db: Database) -> SegmentCache:
    """The cache of callers that bring none: one for each database."""
    with _shared_lock:
        return _shared.setdefault(db, SegmentCache())


def any_of(conditions: Iterable[ColumnElement[bool]]) -> ColumnElement[bool]:
    """True where one of them is."""
    return or_(*conditions)


def _missing(
    cache: SegmentCache, kind: str, keys: Iterable[Any], load: Callable[[list[Any]], dict[Any, Any]]
) -> dict[Any, Any]:
    """What the cache has of `keys`, the rest loaded and remembered by the caller."""
    found = {key: value for key in keys if (value := cache.get((kind, key))) is not None}
    lacking = sorted(set(keys) - found.keys())
    return found | (load(lacking) if lacking else {})


def read_segments(
    conn: Connection, cache: SegmentCache, keys: Sequence[SegmentKey]
) -> dict[SegmentKey, segments.Columns]:
    """Decoded segments by key; those of an erased job are absent."""

    def load(lacking: list[SegmentKey]) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for start in range(0, len(lacking), _KEYS):
            made |= _load_segments(conn, cache, lacking[start : start + _KEYS])
        return made

    return _missing(cache, "segment", keys, load)


def _load_segments(
    conn: Connection, cache: SegmentCache, lacking: Sequence[SegmentKey]
) -> dict[SegmentKey, segments.Columns]:
    if len(lacking) == 1:
        names = (column.name for column in _KEY)
        found = conn.execute(_SEGMENT, dict(zip(names, lacking[0], strict=True)))
    else:
        pairs = (zip(_KEY, key, strict=True) for key in lacking)
        wanted = any_of(and_(*(column == part for column, part in pair)) for pair in pairs)
        found = conn.execute(_SEGMENTS.where(wanted))
    made = {}
    for row in found.all():
        columns = segments.columns(bytes(row.payload))
        made[(row.job_id, row.lane, row.number)] = columns
        cache.put(("segment", tuple(row[:3])), columns, columns.size * _GROWTH)
    return made


def read_lanes(conn: Connection, cache: SegmentCache, lane_ids: Sequence[int]) -> dict[int, Lane]:
    def load(lacking: list[int]) -> dict[Any, Any]:
        made = {row.id: rows.to_lane(row) for row in conn.execute(_LANES, {"ids": lacking})}
        for lane in made.values():
            cache.put(("lane", lane.id), lane, _SMALL)
        return made

    return _missing(cache, "lane", lane_ids, load)


def job_lanes(conn: Connection, cache: SegmentCache, job_id: int) -> list[Lane]:
    """The lanes of a received job, by number."""
    held = cache.get(("lanes", job_id))
    if held is None:
        held = rows.lanes_of(conn, [job_id])
        if held:
            cache.put(("lanes", job_id), held, _SMALL * len(held))
    found: list[Lane] = held
    return found


Place = tuple[int, int, int]  # index, lane number, position


def places(
    conn: Connection, cache: SegmentCache, job_id: int, *, first: int, last: int
) -> list[Place]:
    """Where the images `first` to `last` (inclusive) stand."""
    lanes = job_lanes(conn, cache, job_id)
    if not lanes:
        raise errors.NotFound("this job is still being received")
    if len(lanes) == 1:
        return [(index, lanes[0].number, index) for index in range(first, last + 1)]
    found: list[Place] = []
    for block in range(first // jobs.SEGMENT, last // jobs.SEGMENT + 1):
        start = block * jobs.SEGMENT
        held = _block(conn, cache, job_id, block)
        found += [(start + i, *place) for i, place in enumerate(held) if first <= start + i <= last]
    return found


def _block(conn: Connection, cache: SegmentCache, job_id: int, block: int) -> list[tuple[int, int]]:
    held: list[tuple[int, int]] | None = cache.get(("map", job_id, block))
    if held is None:
        query = select(row_map.c.payload).where(
            row_map.c.job_id == job_id, row_map.c.block == block
        )
        payload = conn.scalar(query)
        if payload is None:
            raise errors.NotFound("the rows of this job are erased")
        held = segments.decode_map(bytes(payload))
        cache.put(("map", job_id, block), held, 100 * len(held))
    return held
