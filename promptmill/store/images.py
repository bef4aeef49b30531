"""Images: the items that a lease asks for, what became of them, and where their bytes are.
An image has a row only once it is terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, bindparam, func, select, tuple_, update

from promptmill import errors, jobs
from promptmill.jobs import JobState
from promptmill.leases import LeasedSpan
from promptmill.records import Image, Job, Output, Work
from promptmill.store import caching, rows
from promptmill.store.caching import SegmentCache, any_of, job_lanes, places, read_lanes
from promptmill.store.caching import read_segments as _read_segments
from promptmill.store.commits import Committed, commit
from promptmill.store.database import Database
from promptmill.store.gaps import gaps
from promptmill.store.pages import page, to_image, walk
from promptmill.tables import DONE, images
from promptmill.tables import jobs as job_table

__all__ = [
    "Committed",
    "SegmentCache",
    "by_sha256",
    "commit",
    "error_counts",
    "existing",
    "fetch",
    "gaps",
    "get",
    "page",
    "relocate",
    "walk",
]
_KEYS_AT_ONCE: Final = 5000
_SPANS: Final = 200  # in one statement

# Made once: to put a statement together takes longer than to run it.
_HEADS: Final = select(
    *(job_table.c[n] for n in ("id", "public_id", "generation", "model", "output", "fingerprint"))
).where(
    job_table.c.id.in_(bindparam("ids", expanding=True)),
    job_table.c.state == JobState.QUEUED.value,
)
_PLACES: Final = select(images.c.lane, images.c.position)
_ENDED: Final = _PLACES.where(
    images.c.lane == bindparam("lane"),
    images.c.position.between(bindparam("first"), bindparam("last")),
)


def fetch(db: Database, spans: Sequence[LeasedSpan], cache: SegmentCache) -> list[Work]:
    """The items of `spans` that are still to be rendered: without those that are terminal,
    and without jobs that are not queued or are of another generation."""
    return db.read(lambda conn: _fetch(conn, spans, cache)) if spans else []


def _fetch(conn: Connection, spans: Sequence[LeasedSpan], cache: SegmentCache) -> list[Work]:
    heads = _heads(conn, {span.job_id for span in spans})
    live = [s for s in spans if s.job_id in heads and heads[s.job_id].generation == s.generation]
    if not live:
        return []
    lanes = read_lanes(conn, cache, [span.lane for span in live])
    live = [span for span in live if span.lane in lanes]
    ended = _terminal(conn, live)
    wanted = [
        (span, position, (span.job_id, lanes[span.lane].number, position // jobs.SEGMENT))
        for span in live
        for position in range(span.start, span.start + span.count)
        if (span.lane, position) not in ended
    ]
    decoded = _read_segments(conn, cache, list({key for _, _, key in wanted}))
    return [
        _work(heads[span.job_id], span, position, decoded[key][position % jobs.SEGMENT])
        for span, position, key in wanted
        if key in decoded
    ]


def _heads(conn: Connection, job_ids: set[int]) -> dict[int, Any]:
    return {row.id: row for row in conn.execute(_HEADS, {"ids": sorted(job_ids)})}


def _terminal(conn: Connection, spans: Sequence[LeasedSpan]) -> set[tuple[int, int]]:
    parts = (spans[start : start + _SPANS] for start in range(0, len(spans), _SPANS))
    return set().union(*(_terminal_in(conn, part) for part in parts))


def _terminal_in(conn: Connection, spans: Sequence[LeasedSpan]) -> set[tuple[int, int]]:
    if len(spans) == 1:
        (only,) = spans
        ends = {"lane": only.lane, "first": only.start, "last": only.start + only.count - 1}
        found = conn.execute(_ENDED, ends)
    else:
        found = conn.execute(_PLACES.where(any_of(map(_inside, spans))))
    return {(lane, position) for lane, position in found}


def _inside(span: LeasedSpan) -> ColumnElement[bool]:
    last = span.start + span.count - 1
    return and_(images.c.lane == span.lane, images.c.position.between(span.start, last))


def _work(head: Any, span: LeasedSpan, position: int, item: jobs.Item) -> Work:
    return Work(
        item=item,
        job_id=span.job_id,
        job=head.public_id,
        lane=span.lane,
        position=position,
        generation=span.generation,
        attempt=span.attempt,
        model=head.model,
        output=Output(**head.output),
        pinned=head.fingerprint,
    )


def _locate(conn: Connection, job: Job, index: int, cache: SegmentCache) -> tuple[int, int, int]:
    """(lane id, lane number, position). Raises `errors.NotFound`."""
    if not 0 <= index < job.counts.total:
        raise errors.NotFound(f"job {job.public_id} has no image {index}")
    ((_, number, position),) = places(conn, cache, job.id, first=index, last=index)
    lane = next(lane for lane in job_lanes(conn, cache, job.id) if lane.number == number)
    return lane.id, number, position


def get(db: Database, job: Job, index: int, *, cache: SegmentCache | None = None) -> Image:
    """Raises `errors.NotFound` when the index is out of range."""
    held = cache or caching.of(db)

    def work(conn: Connection) -> Image:
        lane, number, position = _locate(conn, job, index, held)
        key = (job.id, number, position // jobs.SEGMENT)
        found = _read_segments(conn, held, [key])
        if key not in found:
            raise errors.NotFound(f"job {job.public_id} has no image {index}")
        query = select(images).where(images.c.lane == lane, images.c.position == position)
        item = found[key][position % jobs.SEGMENT]
        return to_image(job, item, conn.execute(query).first())

    return db.read(work)


def relocate(
    db: Database, job: Job, index: int, *, key: str, offset: int | None, length: int | None
) -> str | None:
    """Points a done image at another copy of the same bytes, which `verify --repair` has
    put. Its old object key; None when the image is not done."""

    def work(conn: Connection) -> str | None:
        lane, _, position = _locate(conn, job, index, caching.of(db))
        mine = and_(images.c.lane == lane, images.c.position == position, images.c.state == DONE)
        old = conn.scalar(select(images.c.key).where(mine).with_for_update())
        if old is not None:
            moved = {"key": key, "offset": offset, "length": length}
            conn.execute(update(images).where(mine).values(moved))
        return old

    return db.write(work)


def existing(db: Database, job_id: int, generation: int) -> Iterator[str]:
    """The object keys that rows of this generation have, each once in a row: the images of
    one tar part share its key. In short reads."""
    for lane in db.read(lambda conn: job_lanes(conn, caching.of(db), job_id)):
        after, last = -1, None
        while True:
            query = (
                select(images.c.position, images.c.key, images.c.generation)
                .where(images.c.lane == lane.id, images.c.position > after)
                .order_by(images.c.position)
                .limit(_KEYS_AT_ONCE)
            )
            found = db.read(lambda conn, query=query: conn.execute(query).all())  # type: ignore[misc]
            for row in found:
                if row.key is not None and row.generation == generation and row.key != last:
                    last = row.key
                    yield row.key
            if len(found) < _KEYS_AT_ONCE:
                break
            after = found[-1].position


def by_sha256(
    db: Database,
    tenant_id: int,
    sha: bytes,
    *,
    after: tuple[int, int] | None = None,
    limit: int = 100,
) -> list[tuple[str, int]]:
    """(public job id, index) of the tenant's images with these bytes, oldest job first, from
    behind `after`: (job, index)."""
    query = (
        select(job_table.c.public_id, images.c.index)
        .join(job_table, job_table.c.id == images.c.job_id)
        .where(
            images.c.sha256 == sha,
            job_table.c.tenant_id == tenant_id,
            job_table.c.deleted_at.is_(None),
        )
        .order_by(job_table.c.id, images.c.index)
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(job_table.c.id, images.c.index) > tuple_(*after))
    return [(job, index) for job, index in db.read(lambda conn: conn.execute(query).all())]


def error_counts(db: Database, job_id: int) -> dict[str, int]:
    """Failed images by error code, most frequent first."""
    query = (
        select(images.c.error_code, func.count())
        .where(images.c.job_id == job_id, rows.IS_FAILED)
        .group_by(images.c.error_code)
        .order_by(func.count().desc(), images.c.error_code)
    )
    return {code or "unknown": n for code, n in db.read(lambda c: c.execute(query).all())}
