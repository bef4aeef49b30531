"""Who leads: at most one control process holds the lock. Held means asked now, never
remembered: a leader that lost its session must find out."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final, Protocol

from sqlalchemy import Connection, Engine, exc, text

_KEY: Final = 0x70726F6D  # the advisory lock's number; any constant of ours will do
_TAKE: Final = text("SELECT pg_try_advisory_lock(:key)")
_HELD: Final = text(
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted "
    "AND pid = pg_backend_pid() AND classid = 0 AND objid = :key"
)
_DROP: Final = text("SELECT pg_advisory_unlock(:key)")


class Leadership(Protocol):
    def acquire(self) -> bool:
        """Tries once, without waiting. True when held (also when it was already)."""
        ...

    def held(self) -> bool:
        """Asks; False when the lock or its session was lost."""
        ...

    def release(self) -> None: ...


class AdvisoryLock:
    """Postgres: a session's advisory lock, on a connection kept for it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._session: Connection | None = None

    def acquire(self) -> bool:
        if self.held():
            return True
        try:
            session = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        except exc.DBAPIError:
            return False
        try:
            taken = bool(session.scalar(_TAKE, {"key": _KEY}))
        except exc.DBAPIError:
            taken = False
        if taken:
            self._session = session
        else:
            session.close()
        return taken

    def held(self) -> bool:
        if self._session is None:
            return False
        try:
            if self._session.scalar(_HELD, {"key": _KEY}) == 1:
                return True
        except exc.DBAPIError:
            self._session.invalidate()
        self._session.close()
        self._session = None
        return False

    def release(self) -> None:
        if self.held() and self._session is not None:
            self._session.scalar(_DROP, {"key": _KEY})
            self._session.close()
            self._session = None


class FileLock:
    """SQLite: flock on a file of the data folder. It ends with the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self) -> bool:
        if self.held():
            return True
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        return self.held()  # False when the file was replaced while we opened it

    def held(self) -> bool:
        if self._fd is None:
            return False
        try:
            here, there = os.fstat(self._fd), self._path.stat()
        except FileNotFoundError:
            there = None
        if there is not None and (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
            return True
        self.release()
        return False

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
