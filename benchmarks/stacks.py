"""The two stacks that are measured, both durable: `embedded` (SQLite with synchronous=FULL,
a folder with fsync, Valkey) and `fleet` (Postgres with fsync and synchronous commit,
SeaweedFS, Redis). The servers are started here and end with the block."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import durable
from promptmill.local import Farm
from tests.servers import PostgresServer, RedisServer, S3Server

NAMES = ("embedded", "fleet")
DURABLE: dict[str, str] = {}  # what the servers of each stack said, once it has run


@dataclass(frozen=True, slots=True)
class Stack:
    """environ: what a process needs to use these servers. folder: for its data. objects:
    how those are kept. queue: the Redis whose process is none of the farm's."""

    name: str
    environ: dict[str, str]
    folder: Path
    objects: str
    queue: RedisServer | None = None

    def farm(self, model: str, *, workers: int = 1) -> Farm:
        """An embedded farm on these servers, not started."""
        return _Asked(self.folder, stack=self, model=model, workers=workers, environ=self.environ)


class _Asked(Farm):
    def __init__(
        self, folder: Path, *, stack: Stack, model: str, workers: int, environ: dict[str, str]
    ) -> None:
        super().__init__(folder, model=model, port=0, workers=workers, environ=environ)
        self._stack = stack

    def start(self) -> None:
        super().start()
        DURABLE[self._stack.name] = durable.of_farm(self.settings, self._stack.objects)


@contextmanager
def stack(name: str) -> Iterator[Stack]:
    with ExitStack() as servers:
        folder = Path(servers.enter_context(TemporaryDirectory(prefix="pm-bench-")))
        environ = {k: v for k, v in os.environ.items() if not k.startswith("PROMPTMILL_")}
        objects, queue = durable.FILES, None
        if name == "fleet":
            queue = servers.enter_context(RedisServer())
            database = servers.enter_context(PostgresServer(durable=True))
            store = servers.enter_context(S3Server())
            objects = f"SeaweedFS fsync={str(store.sync_writes()).lower()}"
            environ |= store.new_bucket().env()
            environ["PROMPTMILL_REDIS_URL"] = queue.url
            environ["PROMPTMILL_DATABASE_URL"] = database.new_database()
        yield Stack(name, environ, folder, objects, queue)
