"""The connection to SQLite (WAL) or Postgres, its transactions and their retries. Knows no
table; the SQL stands in the modules beside it."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson
from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, make_url

from promptmill import errors
from promptmill.store import faults, schema
from promptmill.store.leadership import AdvisoryLock, FileLock, Leadership

T = TypeVar("T")

BUSY_SECONDS: Final = 10
_TRIES: Final = {"sqlite": 3, "postgresql": 8}  # a try on SQLite has waited BUSY_SECONDS already
_PRAGMAS: Final = (
    f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = ON",  # a deleted prompt leaves no bytes in free pages
    "PRAGMA temp_store = MEMORY",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA cache_size = -16000",
)
_FAULTS: Final = (exc.DBAPIError, exc.TimeoutError, sqlite3.Error)
_SESSION: Final = (
    "SET lock_timeout = '10s'",
    "SET statement_timeout = '120s'",
    "SET idle_in_transaction_session_timeout = '60s'",
)


def _dumps(value: Any) -> str:
    return orjson.dumps(value).decode()


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except exc.ArgumentError:
        raise errors.SettingInvalid(f"PROMPTMILL_DATABASE_URL={url!r} is not a URL") from None
    family = parsed.drivername.split("+")[0]
    if family == "sqlite" and parsed.database:
        return parsed.set(drivername="sqlite+pysqlite")
    if family in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql+psycopg")
    raise errors.SettingInvalid(
        "PROMPTMILL_DATABASE_URL must be sqlite:///PATH or postgresql://USER@HOST/NAME"
    )


def _place(url: URL) -> str:
    """What errors call it: the file, or the server's URL without password and driver."""
    if url.get_backend_name() == "sqlite":
        return url.database or ""
    return url.set(drivername="postgresql").render_as_string(hide_password=True)


def _sqlite_engine(url: URL) -> Engine:
    engine = create_engine(
        url,
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
        pool_size=8,
        max_overflow=32,
        pool_timeout=30,
        pool_use_lifo=True,  # each connection fills a page cache of its own: few stay warm
        json_serializer=_dumps,
        json_deserializer=orjson.loads,
    )

    @event.listens_for(engine, "connect")
    def _connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            connection.execute("PRAGMA journal_mode = WAL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _private(path: Path) -> None:
    """Makes the file of a new database, which will hold keys and prompts, for its owner alone;
    SQLite gives its logs the same mode. What prevents it, SQLite says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))


def _postgres_engine(url: URL) -> Engine:
    engine = create_engine(
        url,
        connect_args={
            "connect_timeout": 5,
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "application_name": "promptmill",
        },
        pool_size=8,
        max_overflow=32,
        pool_timeout=30,
        pool_pre_ping=True,
        json_serializer=_dumps,
        json_deserializer=orjson.loads,
    )

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            for statement in _SESSION:
                cursor.execute(statement)
        connection.commit()

    return engine


class Database:
    """One pool of connections. Thread-safe. `url` as in PROMPTMILL_DATABASE_URL."""

    def __init__(self, url: str) -> None:
        parsed = _parse(url)
        self.place = _place(parsed)
        self.dialect: str = parsed.get_backend_name()
        sqlite = self.dialect == "sqlite"
        self._engine = _sqlite_engine(parsed) if sqlite else _postgres_engine(parsed)
        self._writer = self._engine.execution_options(writes=True)
        # SQLite has one writer: threads of this process queue here, in order, rather than
        # in SQLite's busy handler, which sleeps.
        self._turn = threading.Lock() if sqlite else nullcontext()

    def now(self) -> float:
        return time.time()

    def read(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in a short read transaction. Raises `errors.DatabaseDown`."""
        return self._run(self._engine, work)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in one write transaction (SQLite: BEGIN IMMEDIATE), again on
        serialization failure, deadlock or SQLITE_BUSY (bounded), and commits. Raises
        `errors.DatabaseDown`."""
        return self._run(self._writer, work)

    def _run(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        tries = _TRIES[self.dialect]
        for number in range(1, tries + 1):
            try:
                with self._turn if engine is self._writer else nullcontext(), engine.begin() as c:
                    return work(c)
            except _FAULTS as error:
                if faults.is_transient(error) and number < tries:
                    time.sleep(random.uniform(0.2, 1.0) * 0.01 * 2**number)
                    continue
                mapped = faults.translate(error, self.place)
                if mapped is None:
                    raise
                raise mapped from error
        raise errors.Internal("unreachable: the last try returns or raises")

    def migrate(self) -> None:
        """Brings the schema to head. Safe when several processes do it at once."""
        if self.dialect == "sqlite" and self._engine.url.database:
            _private(Path(self._engine.url.database).absolute())
        self.write(schema.upgrade)

    def require_schema(self) -> None:
        """Raises `errors.DatabaseDown` naming `promptmill migrate` unless the schema is at
        head."""
        self.read(schema.require_head)

    def leadership(self, lock_file: Path) -> Leadership:
        """control's leader lock: an advisory lock on Postgres, flock on `lock_file` on
        SQLite."""
        if self.dialect == "sqlite":
            return FileLock(lock_file)
        return AdvisoryLock(self._engine)

    def scrub(self) -> bool:
        """SQLite: empties the write-ahead log, which still holds what was just deleted.
        False while a reader or a full disk prevents it. Postgres has VACUUM for that."""
        if self.dialect != "sqlite":
            return True
        try:
            with self._turn, self._engine.connect() as connection:
                return self._checkpoint(connection.connection.driver_connection)
        except _FAULTS as error:
            if faults.translate(error, self.place) is None:
                raise
            return False

    @staticmethod
    def _checkpoint(raw: Any) -> bool:
        raw.execute("PRAGMA busy_timeout = 200")  # writers wait for a checkpoint, too
        try:
            busy, _, _ = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            raw.execute(_PRAGMAS[0])
        return not busy

    def close(self) -> None:
        self._engine.dispose()
