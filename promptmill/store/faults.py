"""What a database error means: try again, the server is gone, the disk is full, or a
mistake of ours, which is left to rise."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from sqlalchemy import exc

from promptmill import errors

_RETRY_SQLSTATES: Final = frozenset({"40001", "40P01", "55P03"})
_DOWN_CLASSES: Final = ("08", "57P", "53", "28", "3D")
_SQLITE_REMEDIES: Final = {
    "SQLITE_CANTOPEN": "the SQLite file cannot be opened: check that the folder exists and can "
    "be written",
    "SQLITE_READONLY": "the SQLite file cannot be written: check its owner and mode",
    "SQLITE_NOTADB": "the file is not a SQLite database",
    "SQLITE_CORRUPT": "the SQLite file is damaged: restore it from a backup",
    "SQLITE_IOERR": "the disk under the SQLite file is full or fails: free space in "
    "PROMPTMILL_DATA_DIR",
    "SQLITE_PERM": "the SQLite file cannot be opened: check its owner and mode",
}
DISK_FULL: Final = (
    "the disk under the database is full: free space in PROMPTMILL_DATA_DIR (or on the "
    "database server), then try again; nothing that was committed is lost"
)
Fault = exc.DBAPIError | exc.TimeoutError | sqlite3.Error


def _origin(error: Fault) -> Any:
    return error.orig if isinstance(error, exc.DBAPIError) else error


def _sqlite_name(origin: BaseException | None) -> str:
    return str(getattr(origin, "sqlite_errorname", "") or "")


def is_transient(error: Fault) -> bool:
    """True where the same transaction may pass if it is run again at once."""
    origin = _origin(error)
    if _of_postgres(origin):
        return origin.sqlstate in _RETRY_SQLSTATES
    return _sqlite_name(origin).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def translate(error: Fault, place: str) -> errors.Error | None:
    """The error to raise instead, or None where `error` is a mistake in the code."""
    if isinstance(error, exc.TimeoutError):
        return errors.DatabaseDown("every connection to the database is busy; try again later")
    origin = _origin(error)
    if _of_postgres(origin):
        return _postgres(error, origin, place)
    return _sqlite(origin, place)


def _of_postgres(origin: Any) -> bool:
    """Told by what its driver's errors have, since a farm on SQLite does not load the driver."""
    return hasattr(origin, "sqlstate")


def _postgres(error: Fault, origin: Any, place: str) -> errors.Error | None:
    state = origin.sqlstate
    if state == "53100":
        return errors.DatabaseDown(DISK_FULL)
    if state == "42P01":
        return errors.DatabaseDown("the database has no tables: run `promptmill migrate`")
    if state in _RETRY_SQLSTATES or state == "57014":
        return errors.DatabaseDown("the database is too busy; try again later")
    lost = isinstance(error, exc.DBAPIError) and error.connection_invalidated
    gone = state is None and (
        isinstance(error, exc.OperationalError) or "connection option" in str(origin)
    )
    if lost or gone or (state or "").startswith(_DOWN_CLASSES):
        first = (str(origin).strip().splitlines() or ["connection lost"])[0]
        return errors.DatabaseDown(
            f"the database at {place} is out of reach ({first}): check PROMPTMILL_DATABASE_URL"
        )
    return None


def _sqlite(origin: BaseException | None, place: str) -> errors.Error | None:
    name = _sqlite_name(origin)
    if name == "SQLITE_FULL":
        return errors.DatabaseDown(DISK_FULL)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return errors.DatabaseDown(f"the database at {place} is too busy; try again later")
    if "no such table" in str(origin):
        return errors.DatabaseDown("the database has no tables: run `promptmill migrate`")
    for prefix, remedy in _SQLITE_REMEDIES.items():
        if name.startswith(prefix):
            return errors.DatabaseDown(
                f"{remedy} ({place}; PROMPTMILL_DATABASE_URL, PROMPTMILL_DATA_DIR)"
            )
    return None
