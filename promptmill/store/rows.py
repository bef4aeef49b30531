"""From rows to records, and the few statements that several modules of the store share:
loading and locking a job, changing its state, closing its counters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    bindparam,
    func,
    literal_column,
    select,
    update,
)

from promptmill import errors, jobs
from promptmill.records import Counts, Job, Lane, Output
from promptmill.store import outbox
from promptmill.tables import FAILED, LIVE, lanes
from promptmill.tables import job_counters as counters
from promptmill.tables import jobs as table

# As text, so that SQLite sees that the partial indexes hold what is asked for.
IS_LIVE: Final[ColumnElement[bool]] = literal_column(f"jobs.{LIVE}")
IS_FAILED: Final[ColumnElement[bool]] = literal_column(f"images.state = {FAILED}")


def _job_select() -> Select[Any]:
    """Jobs with the sums of their sixteen counter rows."""
    sums = (func.coalesce(func.sum(counters.c[name]), 0) for name in ("done", "failed", "bytes"))
    labels = ("n_done", "n_failed", "n_bytes")
    return (
        select(table, *(s.label(label) for s, label in zip(sums, labels, strict=True)))
        .outerjoin(counters, counters.c.job_id == table.c.id)
        .group_by(table.c.id)
        .order_by(table.c.id)
    )


def is_tombstone() -> ColumnElement[bool]:
    """Deleted, and no longer live: only what the sweep needs is left of it."""
    return table.c.deleted_at.is_not(None) & table.c.state.not_in(list(jobs.LIVE))


# Made once: to put such a statement together takes longer than to run it.
_JOBS: Final = _job_select()
_BY_ID: Final = _JOBS.where(table.c.id == bindparam("id"))
_BY_NAME: Final = _JOBS.where(table.c.public_id == bindparam("name"), ~is_tombstone())
_OF_TENANT: Final = _BY_NAME.where(table.c.tenant_id == bindparam("tenant"))
_LANES: Final = (
    select(lanes)
    .where(lanes.c.job_id.in_(bindparam("jobs", expanding=True)))
    .order_by(lanes.c.job_id, lanes.c.number)
)


def to_job(row: Row[Any]) -> Job:
    r = row._mapping
    return Job(
        id=r["id"],
        public_id=r["public_id"],
        tenant_id=r["tenant_id"],
        name=r["name"],
        model=r["model"],
        state=jobs.JobState(r["state"]),
        priority=jobs.Priority(r["priority"]),
        seed=r["seed"],
        generation=r["generation"],
        version=r["version"],
        defaults=r["defaults"],
        output=Output(**r["output"]),
        metadata=r["metadata"],
        webhook=r["webhook"],
        fingerprint=r["fingerprint"],
        recipe=r["recipe"],
        error=r["error"],
        created_at=r["created_at"],
        started_at=r["started_at"],
        finished_at=r["finished_at"],
        expires_at=r["expires_at"],
        counts=Counts(r["total"], int(r["n_done"]), int(r["n_failed"]), int(r["n_bytes"])),
    )


def to_lane(row: Row[Any]) -> Lane:
    r = row._mapping  # `row.count` is a method of every row
    return Lane(r["id"], r["job_id"], r["number"], r["bucket"], r["cost"], r["count"])


def load(conn: Connection, *where: ColumnElement[bool]) -> list[Job]:
    return [to_job(row) for row in conn.execute(_JOBS.where(*where))]


def reload(conn: Connection, job_id: int) -> Job:
    """As it is now; it is known to be there."""
    return to_job(conn.execute(_BY_ID, {"id": job_id}).one())


def find(conn: Connection, tenant_id: int | None, public_id: str) -> Job:
    """Raises `errors.NotFound`, for another tenant's and a deleted job as well."""
    query = _BY_NAME if tenant_id is None else _OF_TENANT
    found = conn.execute(query, {"name": public_id, "tenant": tenant_id}).first()
    if found is None:
        raise errors.NotFound(f"there is no job {public_id!r}")
    return to_job(found)


def lock(conn: Connection, job_id: int) -> Job | None:
    """The job, locked for this transaction; None when it is gone. The job comes before its
    counters in every transaction that locks both."""
    conn.execute(select(table.c.id).where(table.c.id == job_id).with_for_update())
    found = conn.execute(_BY_ID, {"id": job_id}).first()
    return None if found is None else to_job(found)


def find_locked(conn: Connection, tenant_id: int | None, public_id: str) -> Job:
    job = lock(conn, find(conn, tenant_id, public_id).id)
    if job is None:
        raise errors.NotFound(f"there is no job {public_id!r}")
    return job


def lanes_of(conn: Connection, job_ids: Sequence[int]) -> list[Lane]:
    return [to_lane(row) for row in conn.execute(_LANES, {"jobs": job_ids})]


def lock_counters(conn: Connection, job_id: int) -> None:
    """All shards, in order: counters come before images in every transaction that locks
    both."""
    query = select(counters.c.shard).where(counters.c.job_id == job_id)
    conn.execute(query.order_by(counters.c.shard).with_for_update()).all()


def close_counters(conn: Connection, job_id: int) -> None:
    """The fence: a commit that comes later finds its shard closed."""
    conn.execute(update(counters).where(counters.c.job_id == job_id).values(closed=True))


def change(conn: Connection, job: Job, state: jobs.JobState, now: float, **values: Any) -> Job:
    """Moves a locked job to `state`, version + 1, and tells its webhook. Raises
    `errors.IllegalTransition`."""
    jobs.check_transition(job.state, state)
    if state in jobs.FINAL:
        values |= {"finished_at": now, "ended": job.generation + 1}
    conn.execute(
        update(table)
        .where(table.c.id == job.id)
        .values(state=state.value, version=table.c.version + 1, **values)
    )
    changed = reload(conn, job.id)
    tell(conn, changed, now)
    return changed


def tell(conn: Connection, job: Job, now: float) -> None:
    """Queues a webhook, if the job has one, with its state and counts; no prompt, name or
    metadata."""
    if not job.webhook:
        return
    payload = {
        "id": job.public_id,
        "object": "job",
        "state": job.state.value,
        "generation": job.generation,
        "counts": {
            "total": job.counts.total,
            "done": job.counts.done,
            "failed": job.counts.failed,
        },
        "at": now,
    }
    outbox.enqueue_event(
        conn,
        job_id=job.id,
        url=job.webhook,
        type=f"job.{job.state.value}",
        payload=payload,
        now=now,
    )
