"""The schema's revision: bringing it to head, and refusing to work on another."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from promptmill import errors

_FOLDER: Final = Path(__file__).resolve().parent.parent / "migrations"
_KEY: Final = 0x70726F6E  # serialises migrating processes on Postgres


def config(connection: Connection | None = None) -> Config:
    made = Config()
    made.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    made.attributes["connection"] = connection
    return made


def upgrade(connection: Connection) -> None:
    """Runs inside the caller's write transaction: on SQLite that is the lock, on Postgres
    an advisory lock is taken for its length."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL lock_timeout = '60s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _KEY})
    command.upgrade(config(connection), "head")


def require_head(connection: Connection) -> None:
    """Raises `errors.DatabaseDown` unless the schema is at head."""
    head = ScriptDirectory.from_config(config()).get_current_head()
    found = MigrationContext.configure(connection).get_current_revision()
    if found != head:
        raise errors.DatabaseDown(
            f"the database schema is at {found or 'nothing'}, this version needs {head}: "
            "run `promptmill migrate`"
        )
