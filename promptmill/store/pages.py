"""Pages of a job's images in index order, cheap at any depth: by primary key in a job of one
lane; through `row_map` in a job of several; with a state filter as a merge of its lanes,
inside which position order is index order."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, and_, func, select

from promptmill import jobs
from promptmill.jobs import ImageState, Item, JobState
from promptmill.records import Image, Job, Lane
from promptmill.segments import Columns
from promptmill.store import caching, gaps, rows
from promptmill.store.caching import (
    Place,
    SegmentCache,
    SegmentKey,
    any_of,
    job_lanes,
    places,
    read_segments,
)
from promptmill.store.database import Database
from promptmill.tables import DONE, FAILED, images
from promptmill.tables import segments as segment_table

_CODES: Final = {ImageState.DONE: DONE, ImageState.FAILED: FAILED}
_STATES: Final = {DONE: ImageState.DONE, FAILED: ImageState.FAILED}
_AT_ONCE: Final = 100
_FEW: Final = 16
_OVER: Final = frozenset({JobState.CANCELLING, JobState.CANCELLED, JobState.EXPIRED})


def rowless(job: Job) -> ImageState:
    """The state of an image that has no row. Rendering is known to the queue alone."""
    return ImageState.CANCELLED if job.state in _OVER else ImageState.QUEUED


def to_image(job: Job, item: Item, row: Row[Any] | None) -> Image:
    if row is None:
        return Image(job.id, item, rowless(job))
    return Image(
        job_id=job.id,
        item=item,
        state=_STATES[row.state],
        generation=row.generation,
        attempt=row.attempt,
        key=row.key,
        offset=row.offset,
        length=row.length,
        sha256=None if row.sha256 is None else bytes(row.sha256),
        bytes=row.bytes,
        seed=row.seed,
        score=row.score,
        rerolls=tuple((seed, score) for seed, score in json.loads(row.rerolls or "[]")),
        expanded_prompt=row.expanded_prompt,
        fingerprint=row.fingerprint,
        error_code=row.error_code,
        error_text=row.error_text,
        render_ms=row.render_ms,
        worker=row.worker,
        finished_at=row.finished_at,
    )


def page(
    db: Database,
    job: Job,
    *,
    after: int | None,
    limit: int,
    states: Sequence[ImageState] | None = None,
    code: str | None = None,
    cache: SegmentCache | None = None,
) -> tuple[list[Image], bool]:
    """Images from behind index `after`, in index order, and whether there are more. `states`
    and the error `code` filter; rendering counts as queued."""
    first = 0 if after is None else min(max(0, after + 1), job.counts.total)
    held = cache or caching.of(db)
    if states is None and code is None:
        last = min(first + limit, job.counts.total) - 1
        plain = db.read(lambda conn: _plain(conn, held, job, first, last))
        return _images(db, held, job, plain), last + 1 < job.counts.total
    wanted = _wanted(states, code)
    if job.counts.total <= min(_FEW, limit):  # one read, whatever is sought
        every, _ = page(db, job, after=after, limit=limit, cache=cache)
        return [
            one for one in every if one.state in wanted and code in (None, one.error_code)
        ], False
    sought = _Filter(db, held, job, first, limit + 1, wanted, code)
    found = list(islice(sought.places(), limit + 1))
    return _images(db, held, job, found[:limit]), len(found) > limit


def walk(
    db: Database,
    job: Job,
    *,
    limit: int,
    states: Sequence[ImageState] | None = None,
    code: str | None = None,
    cache: SegmentCache | None = None,
) -> Iterator[list[Image]]:
    """Every page in turn, each read when it is asked for; an empty one where there is none."""
    after: int | None = None
    more = True
    while more:
        found, more = page(db, job, after=after, limit=limit, states=states, code=code, cache=cache)
        yield found
        after = found[-1].item.index if found else after


def _plain(conn: Connection, cache: SegmentCache, job: Job, first: int, last: int) -> list[Place]:
    return places(conn, cache, job.id, first=first, last=last) if first <= last else []


def _images(db: Database, cache: SegmentCache, job: Job, found: Sequence[Place]) -> list[Image]:
    """In short reads: strewn images are each of another segment."""
    made: list[Image] = []
    for start in range(0, len(found), _AT_ONCE):
        part = found[start : start + _AT_ONCE]
        made += db.read(lambda conn, part=part: _at(conn, cache, job, part))  # type: ignore[misc]
    return made


def _at(conn: Connection, cache: SegmentCache, job: Job, found: Sequence[Place]) -> list[Image]:
    """The images that stand at these places."""
    ids = {lane.number: lane.id for lane in job_lanes(conn, cache, job.id)}
    keys = {(job.id, number, position // jobs.SEGMENT) for _, number, position in found}
    decoded = read_segments(conn, cache, sorted(keys))
    ended = _rows(conn, {(ids[number], position) for _, number, position in found})
    return [
        to_image(
            job,
            decoded[(job.id, number, position // jobs.SEGMENT)][position % jobs.SEGMENT],
            ended.get((ids[number], position)),
        )
        for _, number, position in found
    ]


def _rows(conn: Connection, wanted: set[tuple[int, int]]) -> dict[tuple[int, int], Row[Any]]:
    """Rows by (lane id, position)."""
    by_lane: dict[int, list[int]] = {}
    for lane, position in wanted:
        by_lane.setdefault(lane, []).append(position)
    where = any_of(_within(lane, positions) for lane, positions in by_lane.items())
    found = conn.execute(select(images).where(where))
    return {(row.lane, row.position): row for row in found}


def _within(lane: int, positions: list[int]) -> ColumnElement[bool]:
    """Neighbours are read as a range, what is strewn one by one."""
    low, high = min(positions), max(positions)
    mine = images.c.lane == lane
    if high - low < 2 * len(positions) + 64:
        return and_(mine, images.c.position.between(low, high))
    return and_(mine, images.c.position.in_(positions))


@dataclass(frozen=True, slots=True)
class _Filter:
    """What a filtered page looks for: places from index `first` on, `limit` at least."""

    db: Database
    cache: SegmentCache
    job: Job
    first: int
    limit: int
    states: frozenset[ImageState]
    code: str | None

    def places(self) -> Iterator[Place]:
        """In index order: a merge of streams that are each in index order."""
        lanes = self.db.read(lambda conn: job_lanes(conn, self.cache, self.job.id))
        streams: list[Iterable[Place]] = []
        codes = sorted(_CODES[state] for state in self.states if state in _CODES)
        if codes == [FAILED]:
            streams.append(self._failed(lanes))
        elif codes:
            streams += [self._rowed(lane, codes) for lane in lanes]
        counts = self.job.counts
        if rowless(self.job) in self.states and counts.done + counts.failed < counts.total:
            streams += [self._gaps(lane) for lane in lanes]
        return heapq.merge(*streams)

    def _failed(self, lanes: Sequence[Lane]) -> Iterator[Place]:
        """By the partial index of failed rows."""
        numbers = {lane.id: lane.number for lane in lanes}
        i = images.c
        query = select(i.index, i.lane, i.position).where(
            i.job_id == self.job.id, i.index >= self.first, rows.IS_FAILED
        )
        if self.code is not None:
            query = query.where(i.error_code == self.code)
        query = query.order_by(i.index).limit(self.limit)
        found = self.db.read(lambda conn: conn.execute(query).all())
        return ((index, numbers[lane], position) for index, lane, position in found)

    def _rowed(self, lane: Lane, codes: Sequence[int]) -> Iterator[Place]:
        """The lane's next rows in one of these states."""
        i = images.c
        query = (
            select(i.index, i.position)
            .where(i.lane == lane.id, i.index >= self.first, i.state.in_(codes))
            .order_by(i.position)
            .limit(self.limit)
        )
        found = self.db.read(
            lambda conn: conn.execute(query.where(i.position >= self._floor(conn, lane))).all()
        )
        return ((index, lane.number, position) for index, position in found)

    def _gaps(self, lane: Lane) -> Iterator[Place]:
        """The lane's images without a row, found as they are asked for."""
        start = self.db.read(lambda conn: self._floor(conn, lane))
        for begin, end in gaps.runs(self.db, lane.id, first=start, end=lane.count):
            for position in range(begin, end):
                columns = self._columns((self.job.id, lane.number, position // jobs.SEGMENT))
                index = columns.index_of(position % jobs.SEGMENT)
                if index >= self.first:
                    yield index, lane.number, position

    def _columns(self, key: SegmentKey) -> Columns:
        held: Columns | None = self.cache.get(("segment", key))
        if held is None:
            held = self.db.read(lambda conn: read_segments(conn, self.cache, [key]))[key]
        return held

    def _floor(self, conn: Connection, lane: Lane) -> int:
        """A position of the lane at or before its first image from `first` on, less than a
        segment too early."""
        if not self.first:
            return 0
        s = segment_table.c
        query = select(func.max(s.number)).where(
            s.job_id == self.job.id, s.lane == lane.number, s.first_index <= self.first
        )
        return (conn.scalar(query) or 0) * jobs.SEGMENT


def _wanted(states: Sequence[ImageState] | None, code: str | None) -> frozenset[ImageState]:
    wanted = set(ImageState if states is None else states)
    if ImageState.RENDERING in wanted:
        wanted.add(ImageState.QUEUED)
    return frozenset(wanted if code is None else wanted & {ImageState.FAILED})
