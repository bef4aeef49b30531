"""Files: what a tenant uploaded, and the output and error files of its batches, whose lines
are made from the rows of a job whenever they are read."""

from __future__ import annotations

import secrets
import string
from collections.abc import Sequence
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

from promptmill import errors
from promptmill.store.database import Database
from promptmill.tables import files as table

RECEIVING: Final = "receiving"  # its bytes are arriving
OPEN: Final = "open"  # of a batch that lives: readable, and still growing
READY: Final = "ready"
DELETED: Final = "deleted"
_ALPHABET: Final = string.ascii_lowercase + string.digits
_STALE: Final = 86_400.0  # seconds after which an upload that did not end is removed
# As text, so that SQLite sees that the partial index holds what is asked for.
_UNREADY: Final[ColumnElement[bool]] = literal_column("files.state IN ('receiving', 'deleted')")


@dataclass(frozen=True, slots=True)
class File:
    """batch_id: whose output or errors it is; such a file has no object."""

    id: int
    public_id: str
    tenant_id: int
    purpose: str
    filename: str
    state: str
    bytes: int
    batch_id: int | None
    created_at: float
    expires_at: float | None


def new_public_id(kind: str) -> str:
    """`file_…`, `batch_…`: 24 random characters."""
    return f"{kind}_" + "".join(secrets.choice(_ALPHABET) for _ in range(24))


def to_file(row: Row[Any]) -> File:
    return File(**row._mapping)


def add(
    conn: Connection,
    tenant_id: int,
    *,
    purpose: str,
    filename: str,
    state: str,
    now: float,
) -> File:
    """Inserts a file in the caller's transaction."""
    values = {
        "public_id": new_public_id("file"),
        "tenant_id": tenant_id,
        "purpose": purpose,
        "filename": filename,
        "state": state,
        "bytes": 0,
        "created_at": now,
    }
    made = conn.execute(insert(table).values(values).returning(table))
    return to_file(made.one())


def adopt(conn: Connection, file: File, batch_id: int) -> None:
    """The file is this batch's."""
    conn.execute(update(table).where(table.c.id == file.id).values(batch_id=batch_id))


def begin(db: Database, tenant_id: int) -> File:
    """A file whose bytes are about to arrive; nobody sees it before `finish`."""
    return db.write(
        lambda conn: add(conn, tenant_id, purpose="", filename="", state=RECEIVING, now=db.now())
    )


def finish(
    db: Database, file: File, *, purpose: str, filename: str, size: int, expires_in: float | None
) -> File:
    """Its bytes are in the store."""
    made = db.write(
        lambda conn: settle(
            conn, file, purpose=purpose, filename=filename, size=size, expires_in=expires_in
        )
    )
    if made is None:
        raise errors.Conflict("the upload took too long and was given up")
    return made


def settle(
    conn: Connection,
    file: File,
    *,
    purpose: str,
    filename: str,
    size: int,
    expires_in: float | None,
) -> File | None:
    """As `finish`, in the caller's transaction; None for a file that was given up."""
    values = {
        "state": READY,
        "purpose": purpose,
        "filename": filename,
        "bytes": size,
        "expires_at": None if expires_in is None else file.created_at + expires_in,
    }
    mine = (table.c.id == file.id) & (table.c.state == RECEIVING)
    change = update(table).where(mine).values(values).returning(table)
    row = conn.execute(change).first()
    return None if row is None else to_file(row)


def _visible(now: float, *states: str) -> list[ColumnElement[bool]]:
    return [
        table.c.state.in_(states),
        or_(table.c.expires_at.is_(None), table.c.expires_at > now),
    ]


def get(db: Database, tenant_id: int, public_id: str, *, param: str = "file_id") -> File:
    """Raises `errors.NotFound`, about `param`, for another tenant's file, too, and for one that
    expired."""
    query = select(table).where(
        table.c.public_id == public_id,
        table.c.tenant_id == tenant_id,
        *_visible(db.now(), OPEN, READY),
    )
    row = db.read(lambda conn: conn.execute(query).first())
    if row is None:
        raise errors.NotFound(f"there is no file {public_id[:100]!r}", param=param)
    return to_file(row)


def page(
    db: Database,
    tenant_id: int,
    *,
    after: str | None,
    limit: int,
    ascending: bool = False,
    purpose: str | None = None,
) -> tuple[list[File], bool]:
    """The tenant's files by age, from behind file `after`, and whether there are more.
    Raises `errors.BadRequest` for an unknown `after`."""
    c = table.c
    query = select(table).where(c.tenant_id == tenant_id, *_visible(db.now(), READY))
    if purpose is not None:
        query = query.where(c.purpose == purpose)
    if after is not None:
        place = _cursor(db, tenant_id, after)
        query = query.where(c.id > place if ascending else c.id < place)
    query = query.order_by(c.id if ascending else c.id.desc()).limit(limit + 1)
    rows = db.read(lambda conn: conn.execute(query).all())
    return [to_file(row) for row in rows[:limit]], len(rows) > limit


def _cursor(db: Database, tenant_id: int, public_id: str) -> int:
    """Also of a file that was deleted while its list was read."""
    mine = (table.c.public_id == public_id) & (table.c.tenant_id == tenant_id)
    found = db.read(lambda conn: conn.scalar(select(table.c.id).where(mine)))
    if found is None:
        raise errors.BadRequest(
            f"there is no file {public_id[:100]!r} to go on from", param="after"
        )
    return int(found)


def drop(db: Database, file: File) -> None:
    """From now on nobody sees it; its object goes with the next sweep."""
    gone = update(table).where(table.c.id == file.id).values(state=DELETED)
    db.write(lambda conn: conn.execute(gone))


def discard(conn: Connection, public_ids: Sequence[str]) -> None:
    """Drops the files of a batch in the caller's transaction."""
    mine = table.c.public_id.in_(list(public_ids))
    conn.execute(update(table).where(mine).values(state=DELETED))


def close(conn: Connection, public_id: str, *, size: int, now: float, expires_in: float) -> None:
    """The file of a batch that has ended, in the caller's transaction. An empty one is not
    listed."""
    values = {
        "state": READY if size else OPEN,
        "bytes": size,
        "created_at": now,
        "expires_at": now + expires_in,
    }
    mine = (table.c.public_id == public_id) & (table.c.state.in_([OPEN, READY]))
    conn.execute(update(table).where(mine).values(values))


def dead(db: Database, limit: int) -> list[File]:
    """Files whose objects nobody may need: deleted, expired, or never completed."""
    c, now = table.c, db.now()
    unready = select(table).where(_UNREADY, or_(c.state == DELETED, c.created_at < now - _STALE))
    expired = select(table).where(c.expires_at <= now)

    def work(conn: Connection) -> list[File]:
        found = [*conn.execute(unready.limit(limit)), *conn.execute(expired.limit(limit))]
        return list({row.id: to_file(row) for row in found}.values())

    return db.read(work)


def forget(db: Database, ids: Sequence[int]) -> None:
    """Removes the rows of files whose objects are gone."""
    db.write(lambda conn: conn.execute(delete(table).where(table.c.id.in_(list(ids)))))
