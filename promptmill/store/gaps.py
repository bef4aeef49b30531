"""Gaps of a lane: the positions that have no terminal row, from which the queue is
rebuilt. Read in short pieces, so that a lane of ten million holds no long snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from sqlalchemy import Connection, func, select

from promptmill.leases import Span
from promptmill.store.database import Database
from promptmill.tables import images, incidents
from promptmill.tables import lanes as lane_table

PIECE: Final = 1 << 16


def missing(conn: Connection, lane_id: int, first: int, end: int) -> list[tuple[int, int]]:
    """[first, end) without the positions that have a row, as (start, end) runs."""
    here = (images.c.lane == lane_id) & images.c.position.between(first, end - 1)
    rows = conn.scalar(select(func.count()).select_from(images).where(here)) or 0
    if rows == end - first:
        return []
    if rows == 0:
        return [(first, end)]
    runs, at = [], first
    for position in conn.scalars(select(images.c.position).where(here).order_by(images.c.position)):
        if position > at:
            runs.append((at, position))
        at = position + 1
    return [*runs, (at, end)] if at < end else runs


def runs(db: Database, lane_id: int, *, first: int, end: int) -> Iterator[tuple[int, int]]:
    """The same over any length, piece by piece."""
    for start in range(first, end, PIECE):
        stop = min(end, start + PIECE)
        yield from db.read(
            lambda conn, start=start, stop=stop: missing(conn, lane_id, start, stop)  # type: ignore[misc]
        )


def gaps(db: Database, lane_id: int) -> list[Span]:
    """Positions without a terminal row, as spans; each with the greatest attempt that an
    incident recorded for it."""
    count = db.read(
        lambda conn: conn.scalar(select(lane_table.c.count).where(lane_table.c.id == lane_id))
    )
    if not count:
        return []
    spans: list[Span] = []
    marks = _attempts(db, lane_id)
    for start, end in runs(db, lane_id, first=0, end=count):
        for span in _split(start, end, marks):
            last = spans[-1] if spans else None
            if last and last.start + last.count == span.start and last.attempt == span.attempt:
                spans[-1] = Span(last.start, last.count + span.count, last.attempt)
            else:
                spans.append(span)
    return spans


def _attempts(db: Database, lane_id: int) -> list[tuple[int, int, int]]:
    """(start, end, attempt) of the lane's incidents."""
    i = incidents.c
    query = select(i.start, i.count, i.attempt).where(i.lane == lane_id).order_by(i.start)
    rows = db.read(lambda conn: conn.execute(query).all())
    return [(start, start + count, attempt) for start, count, attempt in rows]


def _split(start: int, end: int, marks: list[tuple[int, int, int]]) -> Iterator[Span]:
    touching = [mark for mark in marks if mark[0] < end and mark[1] > start]
    edges = {start, end}
    for first, stop, _ in touching:
        edges |= {max(first, start), min(stop, end)}
    bounds = sorted(edges)
    for a, b in pairwise(bounds):
        tried = [attempt for first, stop, attempt in touching if first <= a and b <= stop]
        yield Span(a, b - a, max(tried, default=0))
