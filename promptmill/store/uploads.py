"""Files that a tenant uploads in parts, in any order, until it says which make the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import (
    Connection,
    Row,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from promptmill import errors
from promptmill.store import files
from promptmill.store.database import Database
from promptmill.tables import upload_parts as parts
from promptmill.tables import uploads as table

State: TypeAlias = Literal["pending", "completed", "cancelled", "expired"]
PENDING: Final = "pending"
COMPLETED: Final = "completed"
CANCELLED: Final = "cancelled"
EXPIRED: Final = "expired"  # derived: pending for too long
SECONDS: Final = 3600.0  # in which it must be completed
MOST_PARTS: Final = 10_000
_ASLEEP: Final = 3600.0  # seconds after the end at which no writer of a part lives any more


@dataclass(frozen=True, slots=True)
class Upload:
    """bytes: of the whole file, as announced. file_id: public id of what it became."""

    id: int
    public_id: str
    tenant_id: int
    filename: str
    purpose: str
    bytes: int
    state: State
    keep_seconds: float | None
    file_id: str | None
    created_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class Part:
    """bytes: None while they arrive."""

    id: int
    public_id: str
    upload_id: int
    bytes: int | None
    created_at: float


def create(
    db: Database,
    tenant_id: int,
    *,
    filename: str,
    purpose: str,
    size: int,
    keep_seconds: float | None,
) -> Upload:
    """An upload that waits for its parts."""
    now = db.now()
    values = {
        "public_id": files.new_public_id("upload"),
        "tenant_id": tenant_id,
        "filename": filename,
        "purpose": purpose,
        "bytes": size,
        "state": PENDING,
        "keep_seconds": keep_seconds,
        "created_at": now,
        "expires_at": now + SECONDS,
    }
    made = insert(table).values(values).returning(table)
    return db.write(lambda conn: _upload(conn.execute(made).one(), now))


def _upload(row: Row[Any], now: float) -> Upload:
    held = dict(row._mapping)
    if held["state"] == PENDING and held["expires_at"] <= now:
        held["state"] = EXPIRED
    return Upload(**held)


def get(db: Database, tenant_id: int, public_id: str) -> Upload:
    """Raises `errors.NotFound`, also for another tenant's."""
    return db.read(lambda conn: _get(conn, tenant_id, public_id, db.now()))


def _get(
    conn: Connection, tenant_id: int, public_id: str, now: float, *, lock: bool = False
) -> Upload:
    mine = (table.c.public_id == public_id) & (table.c.tenant_id == tenant_id)
    query = select(table).where(mine)
    row = conn.execute(query.with_for_update() if lock else query).first()
    if row is None:
        raise errors.NotFound(f"there is no upload {public_id[:100]!r}", param="upload_id")
    return _upload(row, now)


def _pending(conn: Connection, upload: Upload, now: float) -> Upload:
    """The upload as it is now, locked. Raises `errors.BadRequest` where it is over."""
    held = _get(conn, upload.tenant_id, upload.public_id, now, lock=True)
    require_pending(held)
    return held


def require_pending(upload: Upload) -> None:
    """Raises `errors.BadRequest` for an upload that is over."""
    if upload.state != PENDING:
        raise errors.BadRequest(f"{upload.public_id} is {upload.state}", param="upload_id")


def begin_part(db: Database, upload: Upload) -> Part:
    """A part whose bytes are about to arrive. Raises `errors.BadRequest` where the upload is
    over or has too many."""
    values = {
        "public_id": files.new_public_id("part"),
        "upload_id": upload.id,
        "created_at": db.now(),
    }

    def work(conn: Connection) -> Part:
        _pending(conn, upload, db.now())
        known = conn.scalar(select(func.count()).where(parts.c.upload_id == upload.id)) or 0
        if known >= MOST_PARTS:
            raise errors.BadRequest(f"an upload has at most {MOST_PARTS} parts")
        return Part(**conn.execute(insert(parts).values(values).returning(parts)).one()._mapping)

    return db.write(work)


def end_part(db: Database, upload: Upload, part: Part, *, size: int, most: int) -> None:
    """Its bytes are in the store. Raises `errors.BadRequest` where the upload is over by now,
    and `errors.TooLarge` where its parts have more than `most` bytes."""

    def work(conn: Connection) -> None:
        _pending(conn, upload, db.now())
        held = select(func.sum(parts.c.bytes)).where(parts.c.upload_id == upload.id)
        if int(conn.scalar(held) or 0) + size > most:
            raise errors.TooLarge(f"the parts of an upload have at most {most} bytes")
        conn.execute(update(parts).where(parts.c.id == part.id).values(bytes=size))

    db.write(work)


def drop_part(db: Database, part: Part) -> None:
    db.write(lambda conn: conn.execute(delete(parts).where(parts.c.id == part.id)))


def chosen(db: Database, upload: Upload, public_ids: Sequence[str]) -> list[Part]:
    """The parts in the order of their names. Raises `errors.BadRequest` for one that is not
    the upload's, has not arrived, or is named twice."""
    query = select(parts).where(parts.c.upload_id == upload.id, parts.c.bytes.is_not(None))
    rows = db.read(lambda conn: conn.execute(query).all())
    held = {row.public_id: Part(**row._mapping) for row in rows}
    if len(set(public_ids)) != len(public_ids):
        raise errors.BadRequest("a part is named twice", param="part_ids")
    for name in public_ids:
        if name not in held:
            raise errors.BadRequest(
                f"{upload.public_id} has no part {name[:100]!r}", param="part_ids"
            )
    return [held[name] for name in public_ids]


def complete(db: Database, upload: Upload, file: files.File, *, size: int) -> files.File | None:
    """`file`, whose bytes are in the store, is what the upload became; None where another
    call was first or it was given up. Raises `errors.BadRequest` where it is over."""

    def work(conn: Connection) -> files.File | None:
        held = _get(conn, upload.tenant_id, upload.public_id, db.now(), lock=True)
        if held.state == COMPLETED:
            return None
        require_pending(held)
        made = files.settle(
            conn,
            file,
            purpose=held.purpose,
            filename=held.filename,
            size=size,
            expires_in=held.keep_seconds,
        )
        if made is not None:
            done = {"state": COMPLETED, "file_id": made.public_id}
            conn.execute(update(table).where(table.c.id == held.id).values(done))
        return made

    return db.write(work)


def cancel(db: Database, upload: Upload) -> Upload:
    """No part can be added to it from now on. One that is cancelled stays so. Raises
    `errors.BadRequest` where it is completed or expired."""

    def work(conn: Connection) -> Upload:
        held = _get(conn, upload.tenant_id, upload.public_id, db.now(), lock=True)
        if held.state == CANCELLED:
            return held
        require_pending(held)
        over = update(table).where(table.c.id == held.id).values(state=CANCELLED)
        return _upload(conn.execute(over.returning(table)).one(), db.now())

    return db.write(work)


def dead(db: Database, limit: int) -> list[tuple[Upload, bool]]:
    """Uploads whose parts nobody may need, and whether they are past all writers, so that
    they can be forgotten."""
    now = db.now()
    long_ago = table.c.expires_at <= now - _ASLEEP
    held = exists().where(parts.c.upload_id == table.c.id)
    ended = and_(table.c.state != PENDING, held)
    query = select(table).where(or_(long_ago, ended)).order_by(table.c.id).limit(limit)
    rows = db.read(lambda conn: conn.execute(query).all())
    return [(_upload(row, now), row.expires_at <= now - _ASLEEP) for row in rows]


def forget(db: Database, upload: Upload, *, wholly: bool) -> None:
    """Removes the rows of its parts, whose objects are gone, or all of it."""

    def work(conn: Connection) -> None:
        conn.execute(delete(parts).where(parts.c.upload_id == upload.id))
        if wholly:
            conn.execute(delete(table).where(table.c.id == upload.id))

    db.write(work)
