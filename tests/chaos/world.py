"""A farm of real processes on real servers, with a breakable link before each of them and a
supervisor that starts again what dies."""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import sqlalchemy as sa

from promptmill import errors
from promptmill.redis_queue import RedisQueue
from tests.chaos.keeper import Keeper
from tests.chaos.links import Link
from tests.e2e.counted import CountedFarm
from tests.servers import PostgresServer, RedisServer, S3Server, ValkeyServer, wait_until

LEASE_SECONDS = 3
LED_SECONDS = 3.0
DISK_BYTES = 16 << 30  # of the embedded stack's file system; memory is used as it fills
Span = tuple[int, int, int]  # lane, first position, position behind the last


class World:
    """stack: `embedded` (Valkey, SQLite, a folder on a small disk) or `fleet` (Redis,
    Postgres, SeaweedFS)."""

    def __init__(self, stack: str, folder: Path, *, workers: int) -> None:
        self.stack = stack
        self.folder = folder
        self.armed = folder / "failpoints"
        self.disk: Path | None = None
        self.database: PostgresServer | None = None
        self.storage: Link | None = None
        self.tables: Link | None = None
        self.looked_at = ""  # the database behind its link
        self._workers = workers
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._build(stack)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def _build(self, stack: ExitStack) -> None:
        self.armed.mkdir(parents=True)
        fleet = self.stack == "fleet"
        self.queue = stack.enter_context(RedisServer() if fleet else ValkeyServer())
        self.wire = stack.enter_context(Link(str(self.queue.socket)))
        env = self._fleet(stack) if fleet else self._embedded(stack)
        self.farm = stack.enter_context(
            CountedFarm(
                self.folder / "farm",
                PROMPTMILL_REDIS_URL=f"redis://127.0.0.1:{self.wire.port}/0",
                PROMPTMILL_FAILPOINTS=f"@{self.armed}",
                PROMPTMILL_LEASE_SECONDS=str(LEASE_SECONDS),
                **env,
            )
        )
        self.farm.start(workers=self._workers)
        stack.enter_context(Keeper(self.farm, thaws=None))
        self.looker = _engine(self.looked_at or self.farm.settings.database)
        stack.callback(self.looker.dispose)
        self.spy = RedisQueue(f"unix://{self.queue.socket}", "stub")
        stack.callback(self.spy.close)
        wait_until(self.well, seconds=600, what="the farm has begun")

    def _fleet(self, stack: ExitStack) -> dict[str, str]:
        self.database = stack.enter_context(PostgresServer())
        self.tables = stack.enter_context(Link(self.database.port))
        objects = stack.enter_context(S3Server())
        self.storage = stack.enter_context(Link(objects.ports["s3.port"]))
        env = objects.new_bucket().fresh().env()
        self.looked_at = self.database.new_database()
        return {
            **env,
            "PROMPTMILL_S3_ENDPOINT_URL": f"http://127.0.0.1:{self.storage.port}",
            "PROMPTMILL_DATABASE_URL": self.looked_at.replace(
                f":{self.database.port}/", f":{self.tables.port}/"
            ),
        }

    def _embedded(self, stack: ExitStack) -> dict[str, str]:
        """Where this user may mount nothing, no disk can be filled."""
        if os.geteuid() != 0:
            return {}
        self.disk = self.folder / "disk"
        self.disk.mkdir()
        self.resize(DISK_BYTES, new=True)
        stack.callback(_call, "umount", "--lazy", str(self.disk))
        return {"PROMPTMILL_DATA_DIR": str(self.disk / "data")}

    def resize(self, size: int, *, new: bool = False) -> None:
        assert self.disk is not None
        options = f"size={size}" if new else f"remount,size={size}"
        _call("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.disk))

    # what can be seen from outside

    def well(self) -> bool:
        return not self.ails()

    def ails(self) -> list[str]:
        """What keeps it from this: the API is ready, a control process leads, and the queue
        is filled."""
        found = []
        try:
            answer = self.farm.http.get("/readyz", timeout=5)
            if answer.status_code != 200:
                found.append(f"/readyz: {answer.text[:300]}")
        except httpx.HTTPError as error:
            found.append(f"/readyz: {error!r}")
        silence = time.time() - self.led_at()
        if silence > LED_SECONDS:
            found.append(f"no control process has led for {silence:.0f} s")
        try:
            if self.spy.epoch() is None:
                found.append("the queue is not filled")
        except errors.RedisDown as error:
            found.append(str(error))
        return found

    def led_at(self) -> float:
        """When a leader last said so."""
        said = [0.0]
        for path in (self.farm.settings.data_dir / "health").glob("control-*.json"):
            try:
                told = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            said.append(told["at"] if told["leader"] else 0.0)
        return max(said)

    def in_flight(self) -> list[Span]:
        """The images that workers hold now."""
        leases = [lease for lease, _ in self.spy.silent(3600)]
        return [(s.lane, s.start, s.start + s.count) for lease in leases for s in lease.spans]

    def landed(self, spans: list[Span]) -> bool:
        """Whether all of these images are terminal."""
        return all(
            self.scalar(
                "SELECT count(*) FROM images WHERE lane = :lane AND position >= :a"
                " AND position < :b",
                lane=lane, a=start, b=end,
            ) == end - start
            for lane, start, end in spans
        )  # fmt: skip

    def rows(self) -> int:
        return int(self.scalar("SELECT sum(done + failed) FROM job_counters") or 0)

    def scalar(self, statement: str, **values: Any) -> Any:
        with self.looker.connect() as connection:
            return connection.execute(sa.text(statement), values).scalar()

    def rendered(self) -> int:
        return self.farm.rendered()

    def logged(self, command: str, event: str) -> int:
        logs = (p.text() for p in self.farm.processes if p.command == command)
        return sum(text.count(event) for text in logs)


def _engine(url: str) -> sa.Engine:
    return sa.create_engine(
        url.replace("postgresql://", "postgresql+psycopg://"), pool_pre_ping=True, pool_size=2
    )


def _call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=20)
