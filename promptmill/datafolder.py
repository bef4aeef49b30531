"""The data folder of an embedded farm: who runs a farm in it, and whether there is one.
Knows no server and no process but by number."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from promptmill import errors, settings

LOCK = "up.lock"
ELSEWHERE = "set PROMPTMILL_DATA_DIR to the farm's --data"
_OWNER = re.compile(r"process (\d+)(?: at (\S+))?")


def take(folder: Path) -> IO[str]:
    """Makes the folder and holds it until the file is closed. Raises `errors.SettingInvalid`
    where it cannot be written, `errors.Conflict` where another process has it."""
    import fcntl  # not on every system that the client runs on

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("a+")
    except OSError as exc:
        raise unwritable(folder, exc) from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip() or "another process"
        lock.close()
        raise errors.Conflict(
            f"the data folder {folder} is in use by `promptmill up` ({owner}): stop "
            "that one, or give another with --data"
        ) from None
    sign(lock)
    return lock


def unwritable(folder: Path, exc: OSError) -> errors.SettingInvalid:
    why = exc.strerror or str(exc)
    return errors.SettingInvalid(
        f"the data folder {folder} cannot be made or written ({why}): name one that this user "
        "may write with --data or PROMPTMILL_DATA_DIR",
        param="PROMPTMILL_DATA_DIR",
    )


def sign(lock: IO[str], url: str = "") -> None:
    """Writes who holds the lock and, once that is known, where it will answer."""
    lock.truncate(0)
    lock.write(f"process {os.getpid()}" + (f" at {url}" if url else ""))
    lock.flush()


def leave(lock: IO[str]) -> None:
    lock.truncate(0)
    lock.close()


def is_starting(folder: Path, url: str) -> bool:
    """Whether a live `promptmill up` has this folder and answers, or will, at the port of
    `url`. The lock itself is left alone: a look at it must never refuse it to its owner."""
    try:
        owner = _OWNER.match((folder / LOCK).read_text())
    except (OSError, ValueError):
        return False
    if owner is None or os.name != "posix":
        return False
    if owner[2] and urlsplit(owner[2]).port != urlsplit(url).port:
        return False
    with suppress(OSError, OverflowError):
        os.kill(int(owner[1]), 0)
        return True
    return False


def holds_farm(given: settings.Settings) -> bool:
    """False where these settings mean the embedded database and it is not there."""
    return bool(given.database_url) or (given.data_dir / settings.DATABASE).exists()


def require_farm(given: settings.Settings) -> None:
    """Raises `errors.DatabaseDown` where `holds_farm` is false."""
    if not holds_farm(given):
        raise errors.DatabaseDown(
            f"no farm has its data in {given.data_dir.resolve()}: {ELSEWHERE}, or "
            "PROMPTMILL_DATABASE_URL; a new farm begins with `promptmill up` or "
            "`promptmill migrate`"
        )
