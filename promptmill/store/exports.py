"""Exports and their shards: made, looked up, deleted. What builds them is in
`export_shards`, what plans them in `export_plans`."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, select, update

from promptmill import errors
from promptmill.exports import Column, Export, File, Format, Kind, Shard, ShardState, State
from promptmill.records import Job
from promptmill.store import rows
from promptmill.store.database import Database
from promptmill.tables import export_shards as shards
from promptmill.tables import exports as table
from promptmill.tables import jobs as job_table

_SECOND_SWEEP: Final = 86_400.0  # seconds after a deletion
_AT_ONCE: Final = 200
_NUMBER: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Progress:
    """Over the sealed shards of an export."""

    sealed: int
    planned: int  # shards, sealed or not; cards do not count
    images: int
    failed: int
    bytes: int  # of all files


def to_export(row: Row[Any]) -> Export:
    r = row._mapping
    columns = None if r["columns"] is None else tuple(Column(*one) for one in r["columns"])
    return Export(
        id=r["id"],
        public_id=r["public_id"],
        job_id=r["job_id"],
        tenant_id=r["tenant_id"],
        format=Format(r["format"]),
        state=State(r["state"]),
        shard_images=r["shard_images"],
        columns=columns,
        generation=r["generation"],
        planned=r["planned"],
        shards=r["shards"],
        cards=r["cards"],
        repairs=tuple((end, low, high) for end, low, high in r["repairs"]),
        error=r["error"],
        created_at=r["created_at"],
        finished_at=r["finished_at"],
    )


def to_shard(row: Row[Any]) -> Shard:
    r = row._mapping
    return Shard(
        export_id=r["export_id"],
        number=r["number"],
        kind=Kind(r["kind"]),
        first=r["first"],
        end=r["end"],
        low=r["low"],
        high=r["high"],
        state=ShardState(r["state"]),
        fence=r["fence"],
        files=tuple(File(**one) for one in r["files"]),
        summary=r["summary"],
        sealed_at=r["sealed_at"],
    )


def create(db: Database, job: Job, format: Format, *, shard_images: int, reuse: bool) -> Export:
    """A new export of the job; with `reuse` the newest that has this format and shard size
    and has not failed, if there is one. Raises `errors.NotFound` when the job is deleted."""

    def work(conn: Connection) -> Export:
        locked = rows.find_locked(conn, job.tenant_id, job.public_id)
        if reuse and (found := _alike(conn, locked.id, format, shard_images)):
            return found
        values = {
            "public_id": f"exp_{secrets.token_hex(12)}",
            "job_id": locked.id,
            "tenant_id": locked.tenant_id,
            "format": format.value,
            "state": State.BUILDING.value,
            "shard_images": shard_images,
            "generation": locked.generation,
            "planned": 0,
            "shards": 0,
            "cards": 0,
            "repairs": [],
            "created_at": db.now(),
        }
        conn.execute(insert(table).values(**values))
        return load(conn, table.c.public_id == values["public_id"])[0]

    return db.write(work)


def _alike(conn: Connection, job_id: int, format: Format, shard_images: int) -> Export | None:
    found = load(
        conn,
        table.c.job_id == job_id,
        table.c.format == format.value,
        table.c.shard_images == shard_images,
        table.c.state != State.FAILED.value,
        table.c.deleted_at.is_(None),
    )
    return found[-1] if found else None


def load(conn: Connection, *where: ColumnElement[bool]) -> list[Export]:
    return [to_export(r) for r in conn.execute(select(table).where(*where).order_by(table.c.id))]


def get(db: Database, tenant_id: int | None, public_id: str) -> tuple[Export, Job]:
    """Raises `errors.NotFound`, for another tenant's and a deleted one as well."""

    def work(conn: Connection) -> tuple[Export, Job]:
        where = [table.c.public_id == public_id, table.c.deleted_at.is_(None)]
        if tenant_id is not None:
            where.append(table.c.tenant_id == tenant_id)
        found = load(conn, *where)
        jobs = rows.load(conn, job_table.c.id == found[0].job_id) if found else []
        if not jobs:
            raise errors.NotFound(f"there is no export {public_id!r}")
        return found[0], jobs[0]

    return db.read(work)


def page(
    db: Database, tenant_id: int, *, job_id: int | None, after: str | None, limit: int
) -> tuple[list[tuple[Export, Job]], bool]:
    """The tenant's exports, of one job or all, newest first, from behind the export `after`,
    and whether there are more. Raises `errors.BadRequest` for an unknown `after`."""

    def work(conn: Connection) -> list[tuple[Export, Job]]:
        where = [table.c.tenant_id == tenant_id, table.c.deleted_at.is_(None)]
        if job_id is not None:
            where.append(table.c.job_id == job_id)
        if after is not None:
            cursor = conn.scalar(select(table.c.id).where(table.c.public_id == after, *where[:1]))
            if cursor is None:
                raise errors.BadRequest(
                    f"there is no export {after!r} to go on from", param="after"
                )
            where.append(table.c.id < cursor)
        newest = select(table).where(*where).order_by(table.c.id.desc()).limit(limit + 1)
        found = [to_export(row) for row in conn.execute(newest)]
        jobs = {j.id: j for j in rows.load(conn, job_table.c.id.in_({e.job_id for e in found}))}
        return [(export, jobs[export.job_id]) for export in found if export.job_id in jobs]

    found = db.read(work)
    return found[:limit], len(found) > limit


def progress(db: Database, export_id: int) -> Progress:
    """Summed over its sealed shards; those not sealed have nothing yet."""
    s = shards.c
    counted = s.kind != Kind.CARD.value
    query = select(
        func.count().filter(counted, s.state == ShardState.SEALED.value),
        func.count().filter(counted),
        *(func.coalesce(func.sum(column), 0) for column in (s.images, s.failed, s.bytes)),
    ).where(s.export_id == export_id)
    return Progress(*map(int, db.read(lambda conn: conn.execute(query).one())))


def sealed(
    db: Database, export_id: int, *, after: int | None, limit: int, cards: bool = False
) -> tuple[list[Shard], bool]:
    """Sealed shards by number from behind `after`, and whether there are more; the newest
    card instead, with `cards`."""
    s = shards.c
    where = [s.export_id == export_id, s.state == ShardState.SEALED.value]
    if cards:
        query = select(shards).where(*where, s.number < 0).order_by(s.number).limit(1)
    else:
        start = -1 if after is None else after
        query = select(shards).where(*where, s.number > start).order_by(s.number).limit(limit + 1)
    found = [to_shard(row) for row in db.read(lambda conn: conn.execute(query).all())]
    return found[:limit], len(found) > limit


def walk(db: Database, export_id: int, *, limit: int) -> Iterator[list[Shard]]:
    """The sealed shards by number, `limit` at a time, each page read when it is asked for."""
    after: int | None = None
    more = True
    while more:
        found, more = sealed(db, export_id, after=after, limit=limit)
        yield found
        after = found[-1].number if found else after


def find_file(db: Database, export: Export, name: str) -> File | None:
    """A sealed file by its name."""
    number = _number_of(name)
    if number is None:
        held = sealed(db, export.id, after=None, limit=1, cards=True)[0]
    else:
        held = sealed(db, export.id, after=number - 1, limit=1)[0]
    return next((file for shard in held for file in shard.files if file.name == name), None)


def _number_of(name: str) -> int | None:
    digits = name.removeprefix("data/train-").partition(".")[0].partition("_")[0]
    return int(digits) if _NUMBER.fullmatch(digits) else None


def remove(db: Database, tenant_id: int | None, public_id: str) -> Export:
    """Deletes an export: nobody sees it any more, its objects are swept by control. Raises
    `errors.NotFound`."""
    export, _ = get(db, tenant_id, public_id)
    gone = update(table).where(table.c.id == export.id, table.c.deleted_at.is_(None))
    db.write(lambda conn: conn.execute(gone.values(deleted_at=db.now())))
    return export


def deleted(db: Database) -> list[tuple[Export, Job]]:
    """Deleted exports whose objects are to be swept now: at once, and again a day later for
    builders that were asleep. Call `purge` after each."""

    def work(conn: Connection) -> list[tuple[Export, Job]]:
        due = table.c.erased_at.is_(None) | (table.c.erased_at <= db.now() - _SECOND_SWEEP)
        query = select(table).where(table.c.deleted_at.is_not(None), due).limit(_AT_ONCE)
        found = [to_export(row) for row in conn.execute(query)]
        jobs = {j.id: j for j in rows.load(conn, job_table.c.id.in_({e.job_id for e in found}))}
        return [(export, jobs[export.job_id]) for export in found if export.job_id in jobs]

    return db.read(work)


def purge(db: Database, export_id: int) -> None:
    """Notes that a deleted export's objects were swept; the second time its rows go."""

    def work(conn: Connection) -> None:
        mine = (table.c.id == export_id) & table.c.deleted_at.is_not(None)
        swept = conn.scalar(select(table.c.erased_at).where(mine))
        if swept is None:
            conn.execute(update(table).where(mine).values(erased_at=db.now()))
        else:
            forget(conn, [export_id])

    db.write(work)


def forget(conn: Connection, export_ids: Sequence[int]) -> int:
    """Erases rows."""
    conn.execute(delete(shards).where(shards.c.export_id.in_(list(export_ids))))
    return conn.execute(delete(table).where(table.c.id.in_(list(export_ids)))).rowcount


def count_open(db: Database) -> int:
    """Shards that wait for a builder or are with one."""
    query = select(func.count()).select_from(shards).where(OPEN)
    return db.read(lambda conn: conn.scalar(query)) or 0


OPEN: Final[ColumnElement[bool]] = shards.c.state.in_(
    [ShardState.PLANNED.value, ShardState.BUILDING.value]
)
