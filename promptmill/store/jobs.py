"""Jobs: looking them up, and every change of state that a caller asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, and_, bindparam, func, select, update
from sqlalchemy import delete as sql_delete

from promptmill import errors
from promptmill.jobs import FINAL, JobState
from promptmill.leases import QueueLane
from promptmill.records import Job, Lane
from promptmill.store import batch_ends, models, rows
from promptmill.store.database import Database
from promptmill.tables import images, incidents, job_counters
from promptmill.tables import jobs as table
from promptmill.tables import tenants as tenant_table

_WEIGHT: Final = select(tenant_table.c.weight).where(tenant_table.c.id == bindparam("tenant"))
_RENDERABLE: Final = select(table.c.id, table.c.generation).where(
    table.c.id.in_(bindparam("ids", expanding=True)), table.c.state == JobState.QUEUED.value
)
_RETRY_CHUNK: Final = 5000
_RETRYABLE: Final = (JobState.COMPLETED, JobState.QUEUED, JobState.PAUSED)


def get(db: Database, tenant_id: int | None, public_id: str) -> Job:
    """Raises `errors.NotFound`, for another tenant's job as well; None: any tenant's."""
    return db.read(lambda conn: rows.find(conn, tenant_id, public_id))


def page(
    db: Database,
    tenant_id: int,
    *,
    after: str | None,
    limit: int,
    states: Sequence[JobState] | None = None,
) -> tuple[list[Job], bool]:
    """The tenant's jobs, newest first, from behind the job `after`, and whether there are
    more. Those still being received are not shown. Raises `errors.BadRequest` for an
    unknown `after`."""

    def work(conn: Connection) -> list[Job]:
        where = [
            table.c.tenant_id == tenant_id,
            table.c.state != JobState.RECEIVING.value,
            ~rows.is_tombstone(),
        ]
        if states is not None:
            where.append(table.c.state.in_([state.value for state in states]))
        if after is not None:
            where.append(table.c.id < _cursor(conn, tenant_id, after))
        newest = select(table.c.id).where(*where).order_by(table.c.id.desc()).limit(limit + 1)
        ids = conn.scalars(newest).all()
        return rows.load(conn, table.c.id.in_(ids))[::-1]

    found = db.read(work)
    return found[:limit], len(found) > limit


def _cursor(conn: Connection, tenant_id: int, public_id: str) -> int:
    query = select(table.c.id).where(table.c.public_id == public_id, table.c.tenant_id == tenant_id)
    found = conn.scalar(query)
    if found is None:
        raise errors.BadRequest(f"there is no job {public_id!r} to go on from", param="after")
    return int(found)


def summary(db: Database, tenant_id: int) -> dict[JobState, int]:
    """How many jobs of the tenant are in which state."""
    query = (
        select(table.c.state, func.count())
        .where(table.c.tenant_id == tenant_id, ~rows.is_tombstone())
        .group_by(table.c.state)
    )
    return {JobState(state): n for state, n in db.read(lambda conn: conn.execute(query).all())}


def lanes(db: Database, job_id: int) -> list[Lane]:
    return db.read(lambda conn: rows.lanes_of(conn, [job_id]))


def queue_lanes(db: Database, job: Job) -> list[QueueLane]:
    """The lanes of a job as `queue.replace` wants them."""

    def work(conn: Connection) -> list[QueueLane]:
        weight = conn.scalar(_WEIGHT, {"tenant": job.tenant_id})
        return [
            QueueLane(
                id=lane.id,
                job_id=job.id,
                count=lane.count,
                generation=job.generation,
                version=job.version,
                tenant_id=job.tenant_id,
                weight=1.0 if weight is None else weight,
                bucket=lane.bucket,
                cost=lane.cost,
                priority=job.priority,
            )
            for lane in rows.lanes_of(conn, [job.id])
        ]

    return db.read(work)


def pause(db: Database, tenant_id: int | None, public_id: str) -> Job:
    """queued → paused; counters stay open. A paused job stays as it is. Raises
    `errors.IllegalTransition`, `errors.NotFound`."""
    return _to(db, tenant_id, public_id, JobState.PAUSED)


def resume(db: Database, tenant_id: int | None, public_id: str) -> Job:
    """paused → queued. A queued job stays as it is."""

    def work(conn: Connection) -> Job:
        job = rows.find_locked(conn, tenant_id, public_id)
        if job.state is JobState.QUEUED:
            return job
        if job.state is not JobState.PAUSED:  # completed → queued is a retry
            raise errors.IllegalTransition(f"a job that is {job.state} cannot be resumed")
        return rows.change(conn, job, JobState.QUEUED, db.now())

    return db.write(work)


def _to(db: Database, tenant_id: int | None, public_id: str, state: JobState) -> Job:
    def work(conn: Connection) -> Job:
        job = rows.find_locked(conn, tenant_id, public_id)
        return job if job.state is state else rows.change(conn, job, state, db.now())

    return db.write(work)


def cancel(db: Database, tenant_id: int | None, public_id: str) -> Job:
    """queued | paused → cancelling, and the fence closes in the same transaction: nothing
    is committed for the job from here on. A job that is over stays as it is."""

    def work(conn: Connection) -> Job:
        job = rows.find_locked(conn, tenant_id, public_id)
        return cancelled(conn, job, db.now())

    return db.write(work)


def cancelled(conn: Connection, job: Job, now: float) -> Job:
    if job.state in FINAL or job.state is JobState.CANCELLING:
        return job
    cancelled = rows.change(conn, job, JobState.CANCELLING, now)
    rows.close_counters(conn, job.id)
    return cancelled


def retry(
    db: Database, tenant_id: int | None, public_id: str, *, codes: Sequence[str] | None
) -> tuple[Job, int]:
    """Puts failed images (of these error codes) back: their rows go, the generation rises,
    the job is queued (a paused one stays paused). (job, number of images); with none to
    retry nothing changes. Raises `errors.IllegalTransition`, and `errors.ModelNotFound` when
    the model was removed. Deletes in chunks, each a
    transaction in which counters equal rows."""

    def first(conn: Connection) -> tuple[Job, int]:
        job = rows.find_locked(conn, tenant_id, public_id)
        if job.state not in _RETRYABLE:
            raise errors.IllegalTransition(f"a job that is {job.state} cannot be retried")
        models.hold(conn, job.model)
        rows.lock_counters(conn, job.id)
        count = _drop_failed(conn, job, codes, before=job.generation + 1)
        return (_reopen(conn, job, db.now()), count) if count else (job, 0)

    def more(conn: Connection) -> int:
        again = rows.lock(conn, job.id)
        going = again is not None and again.state in (JobState.QUEUED, JobState.PAUSED)
        if again is None or not going or again.generation != job.generation:
            return 0
        rows.lock_counters(conn, job.id)
        return _drop_failed(conn, job, codes, before=job.generation)

    job, total = count = db.write(first)
    while count[1] == _RETRY_CHUNK:
        count = (job, db.write(more))
        total += count[1]
    return get(db, tenant_id, public_id), total


def _drop_failed(conn: Connection, job: Job, codes: Sequence[str] | None, *, before: int) -> int:
    """Deletes failed rows that a generation earlier than `before` left, and takes them off one
    shard; that shard may fall below zero, the sum does not."""
    failed = and_(images.c.job_id == job.id, rows.IS_FAILED, images.c.generation < before)
    if codes is not None:
        failed &= images.c.error_code.in_(list(codes))
    keys = select(images.c.lane, images.c.position).where(failed).limit(_RETRY_CHUNK)
    by_lane: dict[int, list[int]] = {}
    for lane, position in conn.execute(keys):
        by_lane.setdefault(lane, []).append(position)
    gone = sum(
        conn.execute(
            sql_delete(images).where(images.c.lane == lane, images.c.position.in_(positions))
        ).rowcount
        for lane, positions in sorted(by_lane.items())
    )
    shard = (job_counters.c.job_id == job.id) & (job_counters.c.shard == 0)
    conn.execute(update(job_counters).where(shard).values(failed=job_counters.c.failed - gone))
    return gone


def _reopen(conn: Connection, job: Job, now: float) -> Job:
    """The next generation. Incidents of the old one charge nothing to it."""
    generation = job.generation + 1
    mine = job_counters.c.job_id == job.id
    conn.execute(update(job_counters).where(mine).values(closed=False, generation=generation))
    conn.execute(sql_delete(incidents).where(incidents.c.job_id == job.id))
    batch_ends.reopen(conn, job.id)
    values: dict[str, Any] = {"generation": generation, "ended": generation}
    if job.state is JobState.COMPLETED:
        return rows.change(conn, job, JobState.QUEUED, now, finished_at=None, **values)
    conn.execute(
        update(table).where(table.c.id == job.id).values(version=table.c.version + 1, **values)
    )
    return rows.reload(conn, job.id)


def renderable(db: Database, pairs: Mapping[int, int]) -> set[int]:
    """Of {job id: generation}, the jobs that are queued in that generation now."""
    found = db.read(lambda conn: conn.execute(_RENDERABLE, {"ids": list(pairs)}).all())
    return {job_id for job_id, generation in found if pairs[job_id] == generation}


def started(db: Database, job_ids: Sequence[int]) -> None:
    """Stamps the start of those that have none."""
    stamp = (
        update(table)
        .where(table.c.id.in_(list(job_ids)), table.c.started_at.is_(None))
        .values(started_at=db.now())
    )
    db.write(lambda conn: conn.execute(stamp))
