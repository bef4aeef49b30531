"""Batches: files of requests that became jobs. While it runs, a batch is its job seen from
another side; the row keeps what a job does not know, and what became of it in the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    insert,
    literal_column,
    select,
    update,
)

from promptmill import errors
from promptmill.records import Job
from promptmill.store import files, rows
from promptmill.store.database import Database
from promptmill.tables import batches as table
from promptmill.tables import jobs as job_table
from promptmill.tables import tenants as tenant_table

REPEAT: Final = 60.0  # seconds in which an equal request counts as the same, sent again
RESENT: Final = 3600.0  # the same for one that says itself that it is sent again
# As text, so that SQLite sees that the partial index holds what is asked for.
ALIVE: Final[ColumnElement[bool]] = literal_column("batches.status IS NULL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked for. With an idempotency key an equal `request_hash` is the same request
    at whatever distance in time. output_expires_in: seconds from its end."""

    tenant_id: int
    endpoint: str
    input_file: str
    completion_window: str
    priority: str
    packing: str
    webhook: str | None
    metadata: Mapping[str, Any] | None
    base_url: str
    output_expires_in: float
    idempotency_key: str | None
    request_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch(Request):
    """A request as it came. seconds: its window. repeat: seconds in which an equal request
    without an idempotency key is the same one."""

    seconds: float
    repeat: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(Request):
    """status: None while it lives, then completed, failed, expired or cancelled. job_id: None
    while its lines are being validated, and for good if they are wrong; `errors` then says
    how. requests, completed, failed: in lines; the last two once it has ended."""

    id: int
    public_id: str
    output_file: str
    error_file: str
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


def of(row: Row[Any]) -> Batch:
    """The batch in a row of its table."""
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
            raise errors.IdempotencyMismatch(param="idempotency_key")
    else:
        equal = mine.where(
            c.request_hash == new.request_hash,
            c.created_at > now - new.repeat,
            c.cancelling_at.is_(None),
        )
        row = conn.execute(equal.order_by(c.id.desc()).limit(1)).first()
    return None if row is None else of(row)


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
    asked = {field.name: getattr(new, field.name) for field in fields(Request)}
    values = asked | {
        "public_id": public_id,
        "output_file": made[0].public_id,
        "error_file": made[1].public_id,
        "metadata": None if new.metadata is None else dict(new.metadata),
        "claimed_until": 0.0,
        "requests": 0,
        "completed": 0,
        "failed": 0,
        "created_at": now,
        "expires_at": now + new.seconds,
    }
    batch = of(conn.execute(insert(table).values(values).returning(table)).one())
    for file in made:
        files.adopt(conn, file, batch.id)
    return batch


def get(db: Database, tenant_id: int, public_id: str) -> Batch:
    """Raises `errors.NotFound` for another tenant's batch, too."""
    query = select(table).where(table.c.public_id == public_id, table.c.tenant_id == tenant_id)
    row = db.read(lambda conn: conn.execute(query).first())
    if row is None:
        raise errors.NotFound(f"there is no batch {public_id[:100]!r}", param="batch_id")
    return of(row)


def by_id(db: Database, id: int) -> Batch | None:
    row = db.read(lambda conn: conn.execute(select(table).where(table.c.id == id)).first())
    return None if row is None else of(row)


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
    return [of(row) for row in found[:limit]], len(found) > limit


def jobs_of(db: Database, batches: Sequence[Batch]) -> dict[int, Job]:
    """The jobs that batches became, by their ids; those deleted since are absent."""
    ids = [batch.job_id for batch in batches if batch.job_id is not None]
    if not ids:
        return {}
    found = db.read(lambda conn: rows.load(conn, job_table.c.id.in_(ids), ~rows.is_tombstone()))
    return {job.id: job for job in found}


def cancel(db: Database, id: int) -> Batch:
    """Remembers that its end was asked for, if it lives, and when first."""
    now = db.now()
    mine = update(table).where(table.c.id == id, ALIVE, table.c.cancelling_at.is_(None))

    def work(conn: Connection) -> Batch:
        conn.execute(mine.values(cancelling_at=now))
        return of(conn.execute(select(table).where(table.c.id == id)).one())

    return db.write(work)


def change(db: Database, id: int, **values: Any) -> Batch:
    """Sets some of its columns; the batch as it is then."""
    change = update(table).where(table.c.id == id).values(values).returning(table)
    return of(db.write(lambda conn: conn.execute(change).one()))
