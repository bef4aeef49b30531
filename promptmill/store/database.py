"""The connection to SQLite (WAL) or Postgres, its transactions and their retries."""
from __future__ import annotations
from collections.abc import Callable
from typing import TypeVar
from sqlalchemy import Connection
T = TypeVar("T")

class Database:
    """One pool of connections. Thread-safe. `url` as in PROMPTMILL_DATABASE_URL."""
    def __init__(self, url: str) -> None: ...
    dialect: str  # "sqlite" | "postgresql"
    def read(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in a short read transaction. Raises `errors.DatabaseDown`."""
    def write(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in one write transaction (SQLite: BEGIN IMMEDIATE), again on
        serialization failure, deadlock or SQLITE_BUSY (bounded), commits. Raises `errors.DatabaseDown`."""
    def now(self) -> float: ...
    def migrate(self) -> None:
        """Brings the schema to head (alembic, shipped inside the package)."""
    def require_schema(self) -> None:
        """Raises `errors.DatabaseDown` naming `promptmill migrate` unless the schema is at head."""
    def leadership(self, lock_file: Path) -> Leadership:
        """control's leader lock: `.acquire() -> bool` (non-blocking), `.held() -> bool` (checked, not cached), `.release()`; advisory lock on Postgres, flock on `lock_file` on SQLite."""
    def close(self) -> None: ...
