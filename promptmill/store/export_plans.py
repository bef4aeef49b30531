"""What control plans: which consecutive images make the next shard of an export, which were
repaired since, and when the card is due. One short transaction a shard."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import Connection, and_, case, func, insert, select, update

from promptmill import jobs, segments
from promptmill.exports import SHARD_BYTES, Export, Kind, Schema, ShardState, State
from promptmill.records import Job
from promptmill.store import exports, rows
from promptmill.store.caching import SegmentCache, job_lanes, places
from promptmill.store.database import Database
from promptmill.tables import DONE, images
from promptmill.tables import export_shards as shards
from promptmill.tables import exports as table
from promptmill.tables import jobs as job_table
from promptmill.tables import segments as segment_table

_OVER: Final = frozenset({*jobs.FINAL, jobs.JobState.CANCELLING})


def waiting(db: Database) -> list[int]:
    """Exports that may have something to plan: those being built, and those that were
    complete before their job was retried."""
    query = (
        select(table.c.id)
        .join(job_table, job_table.c.id == table.c.job_id)
        .where(
            table.c.deleted_at.is_(None),
            job_table.c.deleted_at.is_(None),
            (table.c.state == State.BUILDING.value)
            | (
                (table.c.state == State.COMPLETED.value)
                & (table.c.generation < job_table.c.generation)
            ),
        )
        .order_by(table.c.id)
    )
    return list(db.read(lambda conn: conn.scalars(query).all()))


def find_columns(db: Database, export_id: int, *, stopped: Callable[[], bool]) -> bool:
    """Looks through all rows of the job for the fields they have, unless that is done. True
    when the columns are known. Raises `errors.BadRequest` for rows that are no table."""
    found = db.read(lambda conn: exports.load(conn, table.c.id == export_id))
    if not found or found[0].columns is not None:
        return bool(found)
    schema = Schema()
    for rows_ in _metadata(db, found[0].job_id):
        if stopped():
            return False
        schema.add(rows_)
    kept = [list(asdict(column).values()) for column in schema.columns()]
    note = update(table).where(table.c.id == export_id).values(columns=kept)
    db.write(lambda conn: conn.execute(note))
    return True


def _metadata(db: Database, job_id: int) -> Iterator[Iterable[Any]]:
    """The metadata of the rows of each segment."""
    s = segment_table.c
    after = (-1, -1)
    while True:
        query = (
            select(s.lane, s.number, s.payload)
            .where(
                s.job_id == job_id,
                (s.lane > after[0]) | ((s.lane == after[0]) & (s.number > after[1])),
            )
            .order_by(s.lane, s.number)
            .limit(8)
        )
        found = db.read(lambda conn, query=query: conn.execute(query).all())  # type: ignore[misc]
        if not found:
            return
        for row in found:
            yield segments.columns(bytes(row.payload)).field("metadata")
        after = (found[-1].lane, found[-1].number)


def fail(db: Database, export_id: int, error: str) -> None:
    broken = update(table).where(table.c.id == export_id)
    values = {"state": State.FAILED.value, "error": error, "finished_at": db.now()}
    db.write(lambda conn: conn.execute(broken.values(**values)))


def plan(db: Database, export_id: int, cache: SegmentCache) -> bool:
    """Plans the next shards of the export, or its card; true when it may be asked again at
    once. Reads in short transactions and writes in one, which does nothing if another
    planned meanwhile."""
    found = db.read(lambda conn: _load(conn, export_id))
    if found is None or found[0].state is State.FAILED or found[0].columns is None:
        return False
    export, job = found
    step = _Plan(db, cache, export, job).next()
    return step is not None and db.write(lambda conn: _apply(conn, export, step)) and step.more


def _load(conn: Connection, export_id: int) -> tuple[Export, Job] | None:
    held = exports.load(conn, table.c.id == export_id, table.c.deleted_at.is_(None))
    found = rows.load(conn, job_table.c.id == held[0].job_id) if held else []
    return (held[0], found[0]) if found else None


@dataclass(frozen=True, slots=True)
class _Step:
    """Changes to the row of the export, and shards to add. more: something may follow."""

    changes: Mapping[str, Any]
    shards: Sequence[Mapping[str, Any]] = ()
    more: bool = True


def _apply(conn: Connection, export: Export, step: _Step) -> bool:
    e = table.c
    same = and_(
        e.id == export.id,
        e.generation == export.generation,
        e.planned == export.planned,
        e.shards == export.shards,
        e.cards == export.cards,
        e.deleted_at.is_(None),
    )
    if not conn.execute(update(table).where(same).values(**step.changes)).rowcount:
        return False
    fresh = {
        "export_id": export.id,
        "state": ShardState.PLANNED.value,
        "fence": 0,
        "faults": 0,
        "files": [],
        "summary": {},
        "images": 0,
        "failed": 0,
        "bytes": 0,
    }
    if step.shards:
        conn.execute(insert(shards), [{**fresh, **shard} for shard in step.shards])
    return True


def _shard(number: int, kind: Kind, span: tuple[int, int], low: int, high: int) -> dict[str, Any]:
    first, end = span
    return {
        "number": number,
        "kind": kind.value,
        "first": first,
        "end": end,
        "low": low,
        "high": high,
    }


@dataclass(frozen=True, slots=True)
class _Tally:
    """Rows of a range of images: all, and those done in some generations."""

    rows: int
    done: int
    bytes: int


@dataclass(frozen=True, slots=True)
class _Plan:
    db: Database
    cache: SegmentCache
    export: Export
    job: Job

    def next(self) -> _Step | None:
        export, job = self.export, self.job
        if export.generation < job.generation:
            return self._retried()
        main = self._main() if export.planned < job.counts.total else None
        return main or (self._repair() if export.repairs else None) or self._card()

    @property
    def _over(self) -> bool:
        """Nothing of the job will end any more, in this generation."""
        return self.job.state in _OVER

    def _retried(self) -> _Step:
        """What the new generation makes of images that are planned already is late."""
        export, generation = self.export, self.job.generation
        late = [*export.repairs]
        if export.planned:
            late.append((export.planned, export.generation, generation))
        changes = {"state": State.BUILDING.value, "generation": generation, "repairs": late}
        return _Step({**changes, "finished_at": None})

    def _main(self) -> _Step | None:
        """The next images, if all of them have ended: as many as make a shard, fewer when
        they are large."""
        export = self.export
        first = export.planned
        end = min(first + export.shard_images, self.job.counts.total)
        tally = self._tally(first, end, -1, export.generation)
        if tally.rows < end - first and not self._over:
            return None
        while tally.bytes > SHARD_BYTES and end - first > 1:
            end = first + (end - first) // 2
            tally = self._tally(first, end, -1, export.generation)
        made = _shard(export.shards, Kind.MAIN, (first, end), -1, export.generation)
        return _Step({"planned": end, "shards": export.shards + 1}, [made])

    def _repair(self) -> _Step | None:
        """The late images of the oldest retry, once no more of them can come."""
        (end, low, high), *later = self.export.repairs
        if not later and not self._over and not self._settled(end):
            return None
        made: list[dict[str, Any]] = []
        for span in self._packed(end, low, high):
            made.append(_shard(self.export.shards + len(made), Kind.ADDENDUM, span, low, high))
        return _Step({"repairs": later, "shards": self.export.shards + len(made)}, made)

    def _packed(self, end: int, low: int, high: int) -> Iterator[tuple[int, int]]:
        """Ranges of images that hold a shard's worth of late ones each."""
        most = self.export.shard_images
        first = found = size = 0
        for at, stop in self._windows(end):
            tally = self._tally(at, stop, low, high)
            if found and (found + tally.done > most or size + tally.bytes > SHARD_BYTES):
                yield first, at
                first, found, size = at, 0, 0
            found, size = found + tally.done, size + tally.bytes
        if found:
            yield first, end

    def _settled(self, end: int) -> bool:
        """Every image below `end` has ended."""
        return all(
            self._tally(at, stop, -1, -1).rows == stop - at for at, stop in self._windows(end)
        )

    def _windows(self, end: int) -> Iterator[tuple[int, int]]:
        step = self.export.shard_images
        return ((at, min(end, at + step)) for at in range(0, end, step))

    def _card(self) -> _Step | None:
        """When everything is planned and sealed and no card tells of it yet."""
        export, total = self.export, self.job.counts.total
        planned = export.planned >= total and self._over and not export.repairs
        if not planned or export.state is not State.BUILDING:
            return None
        open_ = select(shards.c.number).where(shards.c.export_id == export.id, exports.OPEN)
        if self.db.read(lambda conn: conn.scalar(open_.limit(1))) is not None:
            return None
        card = _shard(-export.cards - 1, Kind.CARD, (0, total), -1, export.generation)
        return _Step({"cards": export.cards + 1}, [card], more=False)

    def _tally(self, first: int, end: int, low: int, high: int) -> _Tally:
        return self.db.read(lambda conn: self._counted(conn, first, end, low, high))

    def _counted(self, conn: Connection, first: int, end: int, low: int, high: int) -> _Tally:
        """Per lane: inside a lane, consecutive images are a range of positions."""
        i = images.c
        mine = and_(i.state == DONE, i.generation > low, i.generation <= high)
        count = done = size = 0
        for lane, start, stop in self._spans(conn, first, end):
            query = select(
                func.count(),
                func.coalesce(func.sum(case((mine, 1), else_=0)), 0),
                func.coalesce(func.sum(case((mine, i.bytes), else_=0)), 0),
            ).where(i.lane == lane, i.position.between(start, stop))
            found = conn.execute(query).one()
            count, done, size = count + found[0], done + int(found[1]), size + int(found[2])
        return _Tally(count, done, size)

    def _spans(self, conn: Connection, first: int, end: int) -> list[tuple[int, int, int]]:
        """(lane id, first position, last position) of images first to end - 1."""
        lanes = {lane.number: lane.id for lane in job_lanes(conn, self.cache, self.job.id)}
        if len(lanes) == 1:
            return [(*lanes.values(), first, end - 1)]  # type: ignore[list-item]
        reach: dict[int, tuple[int, int]] = {}
        for _, number, position in places(conn, self.cache, self.job.id, first=first, last=end - 1):
            start, _ = reach.get(number, (position, position))
            reach[number] = (start, position)
        return [(lanes[number], *span) for number, span in sorted(reach.items())]
