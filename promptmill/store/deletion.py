"""Deleting jobs: a tombstone now, their rows and bytes bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, select, update

from promptmill.jobs import LIVE
from promptmill.records import Job
from promptmill.store import batch_ends, erasing, jobs, outbox, rows
from promptmill.store.database import Database
from promptmill.tables import jobs as table
from promptmill.tables import lanes as lane_table

_ERASE_SECONDS: Final = 2.0  # the rest of a large job is erased by control


def entomb(conn: Connection, job: Job, now: float) -> None:
    """Makes a job that is over a tombstone: the row keeps what the sweep of its objects
    needs, and no byte of a prompt. So does that of a batch."""
    conn.execute(
        update(table)
        .where(table.c.id == job.id)
        .values(
            name="",
            defaults={},
            metadata={},
            recipe=None,
            webhook=None,
            error=None,
            idempotency_key=None,
            request_hash=None,
            upload_epoch=table.c.upload_epoch + 1,
            deleted_at=now,
        )
    )
    rows.close_counters(conn, job.id)
    conn.execute(update(lane_table).where(lane_table.c.job_id == job.id).values(bucket=""))
    outbox.forget(conn, job.id)
    batch_ends.entomb(conn, job.id, now)


def delete(db: Database, tenant_id: int | None, public_id: str) -> Job:
    """Deletes a job: its rows go, a tombstone stays until its objects are swept twice. A
    live job is cancelled first, and deleted by control once no lease holds it. The jobs that
    verify it hold its prompts and pictures again: they are deleted with it."""

    def work(conn: Connection) -> list[Job]:
        job = rows.find_locked(conn, tenant_id, public_id)
        found = [job, *_verifying(conn, [job.id])]
        return [_bury(conn, one, db.now()) for one in found]

    buried = db.write(work)
    over = [job for job in buried if job.state not in LIVE]
    for job in over:
        erasing.erase(db, job.id, erasing.EVERYTHING, budget=_ERASE_SECONDS / len(over))
    if over:
        db.scrub()
    return buried[0]


def _bury(conn: Connection, job: Job, now: float) -> Job:
    """Makes a locked job a tombstone, or has control do it once the job is cancelled."""
    if job.state in LIVE:
        conn.execute(update(table).where(table.c.id == job.id).values(deleted_at=now))
        return jobs.cancelled(conn, job, now)
    entomb(conn, job, now)
    return job


def _verifying(conn: Connection, job_ids: Sequence[int]) -> list[Job]:
    """The jobs that verify these, and those that verify them, locked."""
    query = select(table.c.id).where(table.c.verifies.in_(job_ids), ~rows.is_tombstone())
    locked = [rows.lock(conn, id) for id in conn.scalars(query.order_by(table.c.id)).all()]
    found = [job for job in locked if job is not None]
    return [*found, *_verifying(conn, [job.id for job in found])] if found else []
