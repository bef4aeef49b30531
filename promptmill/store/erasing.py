"""Erasing a job's rows a few thousand at a time, so that no write transaction is long. What
a crash leaves behind is found again by the tombstone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, Table, delete, select

from promptmill.store import exports, outbox
from promptmill.store.database import Database
from promptmill.tables import exports as export_table
from promptmill.tables import images, incidents, job_counters, lanes, row_map, segments

_IMAGES: Final = 1000
_SEGMENTS: Final = 32


def _image_chunk(conn: Connection, job_id: int) -> int:
    for lane in conn.scalars(select(lanes.c.id).where(lanes.c.job_id == job_id)).all():
        mine = images.c.lane == lane
        ahead = select(images.c.position).where(mine).order_by(images.c.position)
        bound = conn.scalar(ahead.offset(_IMAGES).limit(1))
        upto = [] if bound is None else [images.c.position < bound]
        if gone := conn.execute(delete(images).where(mine, *upto)).rowcount:
            return gone
    return 0


def _segment_chunk(conn: Connection, job_id: int) -> int:
    mine = segments.c.job_id == job_id
    query = select(segments.c.lane, segments.c.number).where(mine).limit(_SEGMENTS)
    keys = conn.execute(query).all()
    for lane, number in keys:
        conn.execute(
            delete(segments).where(mine, segments.c.lane == lane, segments.c.number == number)
        )
    return len(keys)


def _map_chunk(conn: Connection, job_id: int) -> int:
    mine = row_map.c.job_id == job_id
    blocks = conn.scalars(select(row_map.c.block).where(mine).limit(_SEGMENTS)).all()
    return conn.execute(delete(row_map).where(mine, row_map.c.block.in_(blocks))).rowcount


def _rest(conn: Connection, job_id: int) -> int:
    outbox.forget(conn, job_id)
    mine = select(export_table.c.id).where(export_table.c.job_id == job_id)
    exports.forget(conn, conn.scalars(mine).all())
    small: tuple[Table, ...] = (incidents, job_counters)
    for table in small:
        conn.execute(delete(table).where(table.c.job_id == job_id))
    return 0


Chunk = Callable[[Connection, int], int]
SUBMISSION: Final[tuple[Chunk, ...]] = (_segment_chunk, _map_chunk)
EVERYTHING: Final[tuple[Chunk, ...]] = (*SUBMISSION, _rest, _image_chunk)


def erase(
    db: Database, job_id: int, chunks: tuple[Chunk, ...], *, budget: float = float("inf")
) -> bool:
    """Deletes chunk by chunk for `budget` seconds. True when nothing is left."""
    deadline = time.monotonic() + budget
    for chunk in chunks:
        while db.write(lambda conn, chunk=chunk: chunk(conn, job_id)):  # type: ignore[misc]
            if time.monotonic() > deadline:
                return False
    return True
