"""The schema's revision: bringing it to head, and refusing to work on another. Alembic is loaded
by what migrates alone: every process looks at the revision when it starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, inspect, text

from promptmill import errors

if TYPE_CHECKING:
    from alembic.config import Config

HEAD: Final = "0002"  # the last of migrations/versions
_FOLDER: Final = Path(__file__).resolve().parent.parent / "migrations"
_KEY: Final = 0x70726F6E  # serialises migrating processes on Postgres


def config(connection: Connection | None = None) -> Config:
    from alembic.config import Config

    made = Config()
    made.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    made.attributes["connection"] = connection
    return made


def upgrade(connection: Connection) -> None:
    """Runs inside the caller's write transaction: on SQLite that is the lock, on Postgres
    an advisory lock is taken for its length."""
    from alembic import command

    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL lock_timeout = '60s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _KEY})
    command.upgrade(config(connection), "head")


def require_head(connection: Connection) -> None:
    """Raises `errors.DatabaseDown` unless the schema is at head."""
    found = None
    if inspect(connection).has_table("alembic_version"):
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if found != HEAD:
        raise errors.DatabaseDown(
            f"the database schema is at {found or 'nothing'}, this version needs {HEAD}: "
            "run `promptmill migrate`"
        )
