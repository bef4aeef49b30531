"""Who works on a batch: one process at a time, for as long as it says so."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, or_, select, update

from promptmill import jobs
from promptmill.records import Job
from promptmill.store import batches
from promptmill.store.batches import Batch
from promptmill.store.database import Database
from promptmill.tables import batches as table
from promptmill.tables import jobs as job_table

_FINAL: Final = [state.value for state in jobs.FINAL]


def claim(db: Database, *, seconds: float) -> Batch | None:
    """The oldest batch that has something to be done and is nobody's: lines to validate, or
    a job that is over. It is the caller's for `seconds`; `renew` prolongs that."""
    c, now = table.c, db.now()
    due = (
        select(c.id)
        .outerjoin(job_table, job_table.c.id == c.job_id)
        .where(
            batches.ALIVE,
            c.claimed_until <= now,
            or_(c.job_id.is_(None), job_table.c.id.is_(None), job_table.c.state.in_(_FINAL)),
        )
        .order_by(c.id)
        .limit(1)
    )
    if db.read(lambda conn: conn.scalar(due)) is None:
        return None  # most of the time: no write for that

    def work(conn: Connection) -> Batch | None:
        id = conn.scalar(due.with_for_update(of=table, skip_locked=True))
        taken = update(table).where(c.id == id).values(claimed_until=now + seconds)
        row = None if id is None else conn.execute(taken.returning(table)).first()
        return None if row is None else batches.of(row)

    return db.write(work)


def renew(db: Database, id: int, *, seconds: float) -> Batch:
    """The claim holds on; the batch as it is now."""
    return batches.change(db, id, claimed_until=db.now() + seconds)


def release(db: Database, id: int, *, after: float = 0.0) -> None:
    """Anybody may claim it, `after` seconds from now."""
    batches.change(db, id, claimed_until=db.now() + after)


def became(db: Database, id: int, *, job: Job, requests: int) -> Batch:
    """Its lines are valid: it is this job from now on."""
    return batches.change(
        db,
        id,
        job_id=job.id,
        model=job.model,
        requests=requests,
        in_progress_at=db.now(),
        claimed_until=0.0,
    )
