"""What the farm's processes must agree on and nobody else may know: bytes by name, made by
whichever process needs them first. They never leave through the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, select

from promptmill.store import insert_ignore
from promptmill.store.database import Database
from promptmill.tables import secrets

LINKS: Final = "links"  # signs links to the content of images
MANIFESTS: Final = "manifests"  # signs manifests: the seed of an Ed25519 key


def get(db: Database, name: str, make: Callable[[], bytes]) -> bytes:
    """The secret of this name; `make` provides it the first time that anyone asks."""
    known = select(secrets.c.value).where(secrets.c.name == name)

    def work(conn: Connection) -> bytes:
        values = {"name": name, "value": make(), "created_at": db.now()}
        conn.execute(insert_ignore(conn, secrets).values(values))
        return bytes(conn.scalars(known).one())

    found = db.read(lambda conn: conn.scalar(known))
    return db.write(work) if found is None else bytes(found)
