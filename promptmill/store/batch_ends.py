"""How a batch ends, and what is left of it: its files are closed and its webhook is told in
the same transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, delete, select, update

from promptmill.records import Job
from promptmill.store import batches, files, outbox, rows
from promptmill.store.batches import Batch
from promptmill.store.database import Database
from promptmill.tables import batches as table

_AT_ONCE: Final = 200  # batches that one call removes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch: `completed` and `failed` requests, and the bytes of its files."""

    status: str
    completed: int = 0
    failed: int = 0
    output_bytes: int = 0
    error_bytes: int = 0


def refuse(db: Database, id: int, *, problems: Sequence[Mapping[str, Any]], requests: int) -> None:
    """Its lines are wrong: nothing runs."""

    def work(conn: Connection) -> None:
        told = {"errors": list(problems), "requests": requests}
        conn.execute(update(table).where(table.c.id == id).values(told))
        _end(conn, id, Outcome("failed"), db.now())

    db.write(work)


def end(db: Database, id: int, outcome: Outcome, *, job: Job | None = None) -> bool:
    """The batch is over. False, and nothing happens, when `job` was begun again since."""

    def work(conn: Connection) -> bool:
        if job is not None:
            now = rows.lock(conn, job.id)
            if now is None or now.version != job.version:
                return False
        finalizing = None if job is None else job.finished_at
        conn.execute(update(table).where(table.c.id == id).values(finalizing_at=finalizing))
        _end(conn, id, outcome, db.now())
        return True

    return db.write(work)


def _end(conn: Connection, id: int, outcome: Outcome, now: float, *, logged: bool = True) -> None:
    """In the same transaction: its files are closed, and its webhook is told. logged: in the
    log of its job."""
    values = {
        "status": outcome.status,
        "completed": outcome.completed,
        "failed": outcome.failed,
        "ended_at": now,
    }
    change = update(table).where(table.c.id == id, batches.ALIVE).values(values).returning(table)
    row = conn.execute(change).first()
    if row is None:
        return
    batch = batches.of(row)
    for public_id, size in (
        (batch.output_file, outcome.output_bytes),
        (batch.error_file, outcome.error_bytes),
    ):
        files.close(conn, public_id, size=size, now=now, expires_in=batch.output_expires_in)
    if batch.webhook:
        _tell(conn, batch, now, job_id=batch.job_id if logged else None)


def _tell(conn: Connection, batch: Batch, now: float, *, job_id: int | None) -> None:
    payload = {
        "id": batch.public_id,
        "object": "batch",
        "status": batch.status,
        "request_counts": {
            "total": batch.requests,
            "completed": batch.completed,
            "failed": batch.failed,
        },
    }
    outbox.enqueue_event(
        conn,
        job_id=job_id,
        url=batch.webhook or "",
        type=f"batch.{batch.status}",
        payload=payload,
        now=now,
    )


def reopen(conn: Connection, job_id: int) -> None:
    """Its job runs again, by a retry: so does the batch."""
    values = {"status": None, "ended_at": None, "finalizing_at": None, "claimed_until": 0.0}
    conn.execute(update(table).where(table.c.job_id == job_id).values(values))


def entomb(conn: Connection, job_id: int, now: float) -> None:
    """Its job is deleted, and with it the files that were made of the job's rows; one that
    lives is cancelled. What is left tells whoever asks for the batch how it ended, for as
    long as the job's tombstone stands; an equal request makes a new batch. The input file is
    the tenant's own."""
    mine = table.c.job_id == job_id
    for batch in [batches.of(row) for row in conn.execute(select(table).where(mine)).all()]:
        if batch.status is None:
            _end(conn, batch.id, Outcome("cancelled"), now, logged=False)
        files.discard(conn, (batch.output_file, batch.error_file))
    husk = {"metadata": None, "webhook": None, "idempotency_key": None, "request_hash": ""}
    conn.execute(update(table).where(mine).values(**husk, output_file="", error_file=""))


def forget(conn: Connection, job_id: int) -> None:
    """Removes what `entomb` left."""
    conn.execute(delete(table).where(table.c.job_id == job_id))


def retention(db: Database, days: float) -> int:
    """Removes batches that ended more than `days` days ago and never became a job, some
    hundreds at a call; those that did go with it. How many."""
    c = table.c
    old = (
        select(c.id, c.output_file, c.error_file)
        .where(c.job_id.is_(None), c.ended_at < db.now() - days * 86_400)
        .order_by(c.id)
        .limit(_AT_ONCE)
    )

    def work(conn: Connection) -> int:
        found = conn.execute(old).all()
        for row in found:
            files.discard(conn, (row.output_file, row.error_file))
        conn.execute(delete(table).where(c.id.in_([row.id for row in found])))
        return len(found)

    if db.read(lambda conn: conn.execute(old.limit(1)).first()) is None:
        return 0
    return db.write(work)
