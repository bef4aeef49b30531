"""Batches: files of requests that became jobs. While it runs, a batch is its job seen from
another side; the row keeps what a job does not know, and what became of it in the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    delete,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from promptmill import errors, jobs
from promptmill.records import Job
from promptmill.store import files, outbox, rows
from promptmill.store.database import Database
from promptmill.tables import batches as table
from promptmill.tables import jobs as job_table
from promptmill.tables import tenants as tenant_table

REPEAT: Final = 60.0  # seconds in which an equal request counts as the same, sent again
RESENT: Final = 3600.0  # the same for one that says itself that it is sent again
# As text, so that SQLite sees that the partial index holds what is asked for.
_ALIVE: Final[ColumnElement[bool]] = literal_column("batches.status IS NULL")
_FINAL: Final = [state.value for state in jobs.FINAL]
_AT_ONCE: Final = 200  # batches that one call removes


@dataclass(frozen=True, slots=True)
class Batch:
    """status: None while it lives, then completed, failed, expired or cancelled. job_id: None
    while its lines are being validated, and for good if they are wrong; `errors` then says
    how. requests, completed, failed: in lines; the last two once it has ended. output_file,
    error_file: empty when they went with the job."""

    id: int
    public_id: str
    tenant_id: int
    endpoint: str
    input_file: str
    output_file: str
    error_file: str
    completion_window: str
    priority: str
    packing: str
    webhook: str | None
    metadata: Mapping[str, Any] | None
    base_url: str
    output_expires_in: float
    idempotency_key: str | None
    request_hash: str
    status: str | None
    claimed_until: float
    model: str | None
    job_id: int | None
    requests: int
    completed: int
    failed: int
    errors: Sequence[Mapping[str, Any]] | None
    created_at: float
    expires_at: float
    in_progress_at: float | None
    cancelling_at: float | None
    finalizing_at: float | None
    ended_at: float | None


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A request as it came. seconds: its window. repeat: seconds in which an equal request
    is the same one; with an idempotency key, at whatever distance in time."""

    tenant_id: int
    endpoint: str
    input_file: str
    completion_window: str
    seconds: float
    priority: str
    packing: str
    webhook: str | None
    metadata: Mapping[str, Any] | None
    base_url: str
    output_expires_in: float
    idempotency_key: str | None
    request_hash: str
    repeat: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch: `completed` and `failed` requests, and the bytes of its files."""

    status: str
    completed: int = 0
    failed: int = 0
    output_bytes: int = 0
    error_bytes: int = 0


def _batch(row: Row[Any]) -> Batch:
    return Batch(**row._mapping)


def create(db: Database, new: NewBatch) -> tuple[Batch, bool]:
    """The batch, and whether it is new. Raises `errors.IdempotencyMismatch`."""

    def work(conn: Connection) -> tuple[Batch, bool]:
        # Of two equal requests at the same moment one waits here for the other.
        mine = select(tenant_table.c.id).where(tenant_table.c.id == new.tenant_id)
        conn.execute(mine.with_for_update())
        known = _known(conn, new, db.now())
        return (known, False) if known is not None else (_insert(conn, new, db.now()), True)

    return db.write(work)


def _known(conn: Connection, new: NewBatch, now: float) -> Batch | None:
    c = table.c
    mine = select(table).where(c.tenant_id == new.tenant_id)
    if new.idempotency_key is not None:
        row = conn.execute(mine.where(c.idempotency_key == new.idempotency_key)).first()
        if row is not None and row.request_hash != new.request_hash:
            raise errors.IdempotencyMismatch()
    else:
        equal = mine.where(
            c.request_hash == new.request_hash,
            c.created_at > now - new.repeat,
            c.cancelling_at.is_(None),
        )
        row = conn.execute(equal.order_by(c.id.desc()).limit(1)).first()
    return None if row is None else _batch(row)


def _insert(conn: Connection, new: NewBatch, now: float) -> Batch:
    public_id = files.new_public_id("batch")
    made = [
        files.add(
            conn,
            new.tenant_id,
            purpose="batch_output",
            filename=f"{public_id}_{part}.jsonl",
            state=files.OPEN,
            now=now,
        )
        for part in ("output", "error")
    ]
    values = {
        "public_id": public_id,
        "tenant_id": new.tenant_id,
        "endpoint": new.endpoint,
        "input_file": new.input_file,
        "output_file": made[0].public_id,
        "error_file": made[1].public_id,
        "completion_window": new.completion_window,
        "priority": new.priority,
        "packing": new.packing,
        "webhook": new.webhook,
        "metadata": None if new.metadata is None else dict(new.metadata),
        "base_url": new.base_url,
        "output_expires_in": new.output_expires_in,
        "idempotency_key": new.idempotency_key,
        "request_hash": new.request_hash,
        "claimed_until": 0.0,
        "requests": 0,
        "completed": 0,
        "failed": 0,
        "created_at": now,
        "expires_at": now + new.seconds,
    }
    batch = _batch(conn.execute(insert(table).values(values).returning(table)).one())
    for file in made:
        files.adopt(conn, file, batch.id)
    return batch


def get(db: Database, tenant_id: int, public_id: str) -> Batch:
    """Raises `errors.NotFound` for another tenant's batch, too."""
    query = select(table).where(table.c.public_id == public_id, table.c.tenant_id == tenant_id)
    row = db.read(lambda conn: conn.execute(query).first())
    if row is None:
        raise errors.NotFound(f"there is no batch {public_id[:100]!r}", param="batch_id")
    return _batch(row)


def by_id(db: Database, id: int) -> Batch | None:
    row = db.read(lambda conn: conn.execute(select(table).where(table.c.id == id)).first())
    return None if row is None else _batch(row)


def page(
    db: Database, tenant_id: int, *, after: str | None, limit: int
) -> tuple[list[Batch], bool]:
    """The tenant's batches, newest first, from behind batch `after`. Raises
    `errors.BadRequest` for an unknown `after`."""
    query = select(table).where(table.c.tenant_id == tenant_id)
    if after is not None:
        try:
            query = query.where(table.c.id < get(db, tenant_id, after).id)
        except errors.NotFound as error:
            raise errors.BadRequest(f"{error.message} to go on from", param="after") from None
    query = query.order_by(table.c.id.desc()).limit(limit + 1)
    found = db.read(lambda conn: conn.execute(query).all())
    return [_batch(row) for row in found[:limit]], len(found) > limit


def jobs_of(db: Database, batches: Sequence[Batch]) -> dict[int, Job]:
    """The jobs that batches became, by their ids; those deleted since are absent."""
    ids = [batch.job_id for batch in batches if batch.job_id is not None]
    if not ids:
        return {}
    found = db.read(lambda conn: rows.load(conn, job_table.c.id.in_(ids), ~rows.is_tombstone()))
    return {job.id: job for job in found}


def claim(db: Database, *, seconds: float) -> Batch | None:
    """The oldest batch that has something to be done and is nobody's: lines to validate, or
    a job that is over. It is the caller's for `seconds`; `renew` prolongs that."""
    c, now = table.c, db.now()
    due = (
        select(c.id)
        .outerjoin(job_table, job_table.c.id == c.job_id)
        .where(
            _ALIVE,
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
        return None if row is None else _batch(row)

    return db.write(work)


def renew(db: Database, id: int, *, seconds: float) -> Batch:
    """The claim holds on; the batch as it is now."""
    return _change(db, id, claimed_until=db.now() + seconds)


def release(db: Database, id: int, *, after: float = 0.0) -> None:
    """Anybody may claim it, `after` seconds from now."""
    _change(db, id, claimed_until=db.now() + after)


def cancel(db: Database, id: int) -> Batch:
    """Remembers that its end was asked for, if it lives, and when first."""
    now = db.now()
    mine = update(table).where(table.c.id == id, _ALIVE, table.c.cancelling_at.is_(None))

    def work(conn: Connection) -> Batch:
        conn.execute(mine.values(cancelling_at=now))
        return _batch(conn.execute(select(table).where(table.c.id == id)).one())

    return db.write(work)


def became(db: Database, id: int, *, job: Job, requests: int) -> Batch:
    """Its lines are valid: it is this job from now on."""
    return _change(
        db,
        id,
        job_id=job.id,
        model=job.model,
        requests=requests,
        in_progress_at=db.now(),
        claimed_until=0.0,
    )


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
    change = update(table).where(table.c.id == id, _ALIVE).values(values).returning(table)
    row = conn.execute(change).first()
    if row is None:
        return
    batch = _batch(row)
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
    for batch in [_batch(row) for row in conn.execute(select(table).where(mine)).all()]:
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


def _change(db: Database, id: int, **values: Any) -> Batch:
    change = update(table).where(table.c.id == id).values(values).returning(table)
    return _batch(db.write(lambda conn: conn.execute(change).one()))
