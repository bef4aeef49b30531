"""What the control process reads and decides: jobs that are complete, cancelled or expired,
incidents, what may be swept, what is too old to keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Final

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, or_, select, update

from promptmill import errors, jobs
from promptmill.jobs import JobState
from promptmill.leases import Incident
from promptmill.records import Job
from promptmill.store import batch_ends, deletion, erasing, insert_ignore, rows
from promptmill.store.database import Database
from promptmill.tables import images, incidents, job_counters, lanes
from promptmill.tables import jobs as table

_OPEN: Final = [JobState.QUEUED.value, JobState.PAUSED.value]
_SECOND_SWEEP: Final = 86_400.0  # seconds after a deletion
_AT_ONCE: Final = 200

# Made once: to put a statement together takes longer than to run it.
_READY: Final = (
    select(table.c.id)
    .outerjoin(job_counters, job_counters.c.job_id == table.c.id)
    .where(
        rows.IS_LIVE,
        table.c.state.in_(_OPEN),
        or_(table.c.started_at.is_not(None), table.c.total == 0),
    )
    .group_by(table.c.id)
    .having(
        func.coalesce(func.sum(job_counters.c.done + job_counters.c.failed), 0) >= table.c.total
    )
)
_READY_OF: Final = _READY.where(table.c.public_id.in_(bindparam("ids", expanding=True)))


def open_jobs(db: Database, model: str | None = None) -> list[Job]:
    """Jobs queued, paused or cancelling, of one model or all, oldest first."""
    live = table.c.state.in_([state.value for state in jobs.LIVE])
    where: list[ColumnElement[bool]] = [rows.IS_LIVE, live]
    if model is not None:
        where.append(table.c.model == model)
    return db.read(lambda conn: rows.load(conn, *where))


def lane_terminals(db: Database, lane_ids: Sequence[int]) -> dict[int, int]:
    """Terminal rows per lane, counted: its cost grows with the rows. An audit of a whole
    job reads `job.counts` instead, which are the same number over its lanes."""
    query = (
        select(images.c.lane, func.count())
        .where(images.c.lane.in_(list(lane_ids)))
        .group_by(images.c.lane)
    )
    found = db.read(lambda conn: conn.execute(query).all())
    return dict.fromkeys(lane_ids, 0) | {row[0]: row[1] for row in found}


def closed_lanes(db: Database, lane_ids: Sequence[int]) -> dict[int, int]:
    """Of these lanes those that have no place in the queue, since their job is not queued
    or is gone: lane id → the version of its job, to drop it with."""
    query = (
        select(lanes.c.id, table.c.state, table.c.version)
        .join(table, table.c.id == lanes.c.job_id)
        .where(lanes.c.id.in_(list(lane_ids)))
    )
    found = {row.id: row for row in db.read(lambda conn: conn.execute(query).all())}
    closed = {
        lane: row.version for lane, row in found.items() if row.state != JobState.QUEUED.value
    }
    return closed | {lane: 1 << 30 for lane in lane_ids if lane not in found}


def _each(
    db: Database, ids: Sequence[int], step: Callable[[Connection, int], Job | None]
) -> list[Job]:
    """One transaction per job, so that none waits for another."""
    done = [db.write(lambda conn, job_id=job_id: step(conn, job_id)) for job_id in ids]  # type: ignore[misc]
    return [job for job in done if job is not None]


def finish_ready(db: Database, public_ids: Sequence[str] | None = None) -> list[Job]:
    """Completes the queued and paused jobs (of `public_ids`, or all) whose counters reach the
    total. The counters are closed and summed again first."""
    query, given = (_READY, {}) if public_ids is None else (_READY_OF, {"ids": list(public_ids)})
    found = db.read(lambda conn: conn.scalars(query, given).all())
    return _each(db, found, lambda conn, job_id: _complete(conn, job_id, db.now()))


def _complete(conn: Connection, job_id: int, now: float) -> Job | None:
    locked = rows.lock(conn, job_id)
    if locked is None or locked.state.value not in _OPEN:
        return None
    rows.lock_counters(conn, job_id)
    job = rows.reload(conn, job_id)
    if job.counts.done + job.counts.failed < job.counts.total:
        return None
    rows.close_counters(conn, job_id)
    started = job.started_at if job.started_at is not None else now
    return rows.change(conn, job, JobState.COMPLETED, now, started_at=started)


def finish_cancelling(db: Database, job_id: int) -> Job | None:
    """cancelling → cancelled, for control to call when no live lease holds the job. One
    whose deletion was asked for becomes a tombstone. None when it is not cancelling."""

    def work(conn: Connection) -> tuple[Job, bool] | None:
        now = db.now()
        job = rows.lock(conn, job_id)
        if job is None or job.state is not JobState.CANCELLING:
            return None
        cancelled = rows.change(conn, job, JobState.CANCELLED, now)
        asked = conn.scalar(select(table.c.deleted_at).where(table.c.id == job_id)) is not None
        if asked:
            deletion.entomb(conn, cancelled, now)
        return cancelled, asked

    found = db.write(work)
    if found is None:
        return None
    if found[1]:
        erasing.erase(db, job_id, erasing.EVERYTHING, budget=2.0)
        db.scrub()
    return found[0]


def expire(db: Database) -> list[Job]:
    """Ends the queued and paused jobs whose window has closed; what is done stays."""
    now = db.now()
    query = select(table.c.id).where(
        rows.IS_LIVE, table.c.state.in_(_OPEN), table.c.expires_at <= now
    )

    def step(conn: Connection, job_id: int) -> Job | None:
        job = rows.lock(conn, job_id)
        if job is None or job.state.value not in _OPEN:
            return None
        rows.close_counters(conn, job_id)
        return rows.change(conn, job, JobState.EXPIRED, now)

    return _each(db, db.read(lambda conn: conn.scalars(query).all()), step)


def record_incidents(db: Database, incidents: Sequence[Incident]) -> None:
    """Once each, by (lease id, lane, start). Before Redis is touched."""
    if incidents:
        now = db.now()
        db.write(lambda conn: _record(conn, incidents, now))


def _record(conn: Connection, given: Sequence[Incident], now: float) -> None:
    conn.execute(insert_ignore(conn, incidents), [{**asdict(one), "at": now} for one in given])


def charged(db: Database, lane: int, position: int, kind: str) -> int:
    """Incidents of a kind that are charged to this image."""
    i = incidents.c
    query = select(func.count()).where(
        i.lane == lane, i.start <= position, i.start + i.count > position, i.kind == kind
    )
    return db.read(lambda conn: conn.scalar(query)) or 0


def sweepable(db: Database, *, settled: float = 0.0) -> list[Job]:
    """Jobs with generations that are over and not yet swept, `settled` seconds after they
    finished; `sweepable_generations` says which."""
    where = [
        table.c.swept < table.c.ended,
        table.c.deleted_at.is_(None),
        or_(table.c.finished_at.is_(None), table.c.finished_at <= db.now() - settled),
    ]
    query = select(table.c.id).where(*where).order_by(table.c.id).limit(_AT_ONCE)
    return db.read(lambda conn: rows.load(conn, table.c.id.in_(conn.scalars(query).all())))


def sweepable_generations(db: Database, job_id: int) -> range:
    """The generations of the job that are over and not swept."""
    query = select(table.c.swept, table.c.ended).where(table.c.id == job_id)
    found = db.read(lambda conn: conn.execute(query).first())
    return range(0) if found is None else range(found.swept, found.ended)


def swept(db: Database, job_id: int, generation: int) -> None:
    """Notes that every generation up to and including this one is swept."""
    note = (
        update(table)
        .where(table.c.id == job_id, table.c.swept <= generation)
        .values(swept=generation + 1)
    )
    db.write(lambda conn: conn.execute(note))


def tombstones(db: Database) -> list[Job]:
    """Deleted jobs whose objects are to be swept now: at once, and again a day later. Sweep
    everything under `jobs/<public id>/`, then call `purge`."""
    where = [
        rows.is_tombstone(),
        table.c.deleted_at.is_not(None),
        or_(table.c.erased_at.is_(None), table.c.erased_at <= db.now() - _SECOND_SWEEP),
    ]
    query = select(table.c.id).where(*where).order_by(table.c.id).limit(_AT_ONCE)
    return db.read(lambda conn: rows.load(conn, table.c.id.in_(conn.scalars(query).all())))


def purge(db: Database, job_id: int) -> bool:
    """Notes that a tombstone's objects were swept, and erases what rows it still has. The
    call a day later removes the tombstone itself and returns True. Spares any other job."""
    grave = select(table.c.id).where(table.c.id == job_id, rows.is_tombstone())
    if db.read(lambda conn: conn.scalar(grave)) is None:
        return False
    erasing.erase(db, job_id, erasing.EVERYTHING)
    if not db.scrub():
        return False  # a reader holds what was deleted; the next round asks again

    def work(conn: Connection) -> bool:
        now = db.now()
        mine = (table.c.id == job_id) & rows.is_tombstone()
        due = mine & (table.c.erased_at <= now - _SECOND_SWEEP)
        if conn.execute(delete(table).where(due)).rowcount:
            conn.execute(delete(lanes).where(lanes.c.job_id == job_id))
            batch_ends.forget(conn, job_id)
            return True
        conn.execute(update(table).where(mine, table.c.erased_at.is_(None)).values(erased_at=now))
        return False

    return db.write(work)


def retention(db: Database, days: float) -> list[Job]:
    """Deletes jobs that finished more than `days` days ago, some hundreds at a call, and
    returns them; their objects follow as tombstones."""
    query = (
        select(table.c.id, table.c.public_id)
        .where(
            table.c.state.in_([state.value for state in jobs.FINAL]),
            table.c.deleted_at.is_(None),
            table.c.finished_at < db.now() - days * 86_400,
        )
        .order_by(table.c.id)
        .limit(_AT_ONCE)
    )
    deleted = []
    for row in db.read(lambda conn: conn.execute(query).all()):
        with suppress(errors.NotFound):  # deleted meanwhile, or with the job that it verified
            deleted.append(deletion.delete(db, None, row.public_id))
    return deleted
