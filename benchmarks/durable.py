"""What keeps things safe, as the servers say when they are asked, and SQLite on a connection that
is made as those that write are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis
from sqlalchemy import Connection

from promptmill.settings import Settings
from promptmill.store.database import Database

Ask = Callable[[str], Any]  # the single value that a statement returns
_SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")
FILES = "files with fsync"


def of_farm(settings: Settings, objects: str) -> str:
    """Of the database and the queue of a farm that runs, beside what is known of its objects."""
    db = Database(settings.database)
    try:
        ask = {"sqlite": of_sqlite, "postgresql": of_postgres}[db.dialect]
        database = db.read(lambda c: ask(_asking(c)))
    finally:
        db.close()
    return f"{database}; {objects}; {of_redis(settings.redis)}; jobs in the database"


def of_sqlite(ask: Ask) -> str:
    """Asked on a connection that writes: each has its own."""
    mode = ask("PRAGMA journal_mode")
    return f"SQLite {mode} synchronous={_SYNCHRONOUS[ask('PRAGMA synchronous')]}"


def of_postgres(ask: Ask) -> str:
    fsync, commit = ask("SHOW fsync"), ask("SHOW synchronous_commit")
    return f"Postgres fsync={fsync} synchronous_commit={commit}"


def of_redis(url: str) -> str:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        name = "Valkey" if "valkey_version" in client.info("server") else "Redis"
        told = client.config_get("append*")
    if told["appendonly"] != "yes":
        return f"{name} appendonly={told['appendonly']}"
    return f"{name} appendfsync={told['appendfsync']}"


def _asking(connection: Connection) -> Ask:
    return lambda statement: connection.exec_driver_sql(statement).scalar_one()
