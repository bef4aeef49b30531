"""A farm of real processes for the end-to-end tests, and the invariants that must hold
after whatever was done to it. The checks read tables and objects by themselves: they do
not ask the code under test."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import PIL.Image
import redis
import sqlalchemy as sa

from promptmill.blobs import BlobStore, open_store
from promptmill.models import Model
from promptmill.settings import read
from promptmill.store import models, tenants
from promptmill.store.database import Database
from tests.servers import free_port, wait_until
from worker.generators import registry
from worker.generators.stub import Stub

FINAL = {"completed", "cancelled", "failed", "expired"}


@dataclass
class Process:
    """One `promptmill COMMAND`, or `MODULE COMMAND`, its output in a file."""

    command: str
    env: Mapping[str, str]
    log: Path
    module: str = "promptmill"
    popen: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        with self.log.open("ab") as out:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", self.module, *self.command.split()],
                env=dict(self.env),
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def signal(self, number: int) -> None:
        if self.alive:
            self.popen.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.popen.wait(10)

    def stop(self, seconds: float = 32) -> int:
        """SIGTERM, and the exit status."""
        self.signal(signal.SIGTERM)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def text(self) -> str:
        return self.log.read_text(errors="replace")


class Farm:
    """API, control and workers as separate processes on the given servers."""

    def __init__(self, folder: Path, *, model: str = "stub", **env: str) -> None:
        self.folder = folder
        self.port = free_port()
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PROMPTMILL_")}
        self.env = {
            **clean,
            "PROMPTMILL_DATA_DIR": str(folder / "data"),
            "PROMPTMILL_PORT": str(self.port),
            "PROMPTMILL_MODEL": model,
            "PROMPTMILL_LEASE_SECONDS": "3",
            "PYTHONUNBUFFERED": "1",
            **env,
        }
        (folder / "data").mkdir(parents=True, exist_ok=True)
        self.settings = read({k: v for k, v in self.env.items() if k.startswith("PROMPTMILL_")})
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)
        self.processes: list[Process] = []

    # processes

    def run(self, command: str, **env: str) -> Process:
        name = f"{command.split(maxsplit=1)[0]}-{len(self.processes)}.log"
        process = Process(command, {**self.env, **env}, self.folder / name)
        self.processes.append(process)
        return process

    def call(self, command: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end, as a user would."""
        return subprocess.run(
            [sys.executable, "-m", "promptmill", *command.split()],
            env={**self.env, "PROMPTMILL_URL": str(self.http.base_url)},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def start(self, *, workers: int = 1) -> Self:
        self.prepare()
        self.api = self.run("api")
        self.control = self.run("control")
        self.workers = [self.run("worker") for _ in range(workers)]
        self.wait_api()
        return self

    def prepare(self) -> None:
        """What `promptmill migrate` does, in this process, and the stub as its first worker
        would register it: `migrate` knows only the models that ship."""
        db = Database(self.settings.database)
        db.migrate()
        tenants.ensure_default(db)
        for model in (*registry.seeds(), Model("stub", Stub.caps, "")):
            models.add(db, model)
        db.close()

    def start_api(self, **env: str) -> Process:
        self.api = self.run("api", **env)
        self.wait_api()
        return self.api

    def wait_api(self) -> None:
        wait_until(self.ready, seconds=90, what=lambda: f"the API answers:\n{self.api.text()}")

    def ready(self) -> bool:
        try:
            return self.http.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def add_worker(self, **env: str) -> Process:
        self.workers.append(self.run("worker", **env))
        return self.workers[-1]

    def wait_leasing(self, worker: Process, *, seconds: float = 120) -> None:
        """Until that very worker holds a lease."""
        wait_until(
            lambda: any(
                f"-{worker.popen.pid}-" in one["id"] and one["leases"]
                for one in self.http.get("/v1/workers").json()["data"]
            ),
            seconds=seconds,
            what="the worker holds a lease",
        )

    def serving(self) -> int:
        return len(self.http.get("/v1/workers").json()["data"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self.processes:
            process.kill()
        if kind is not None:
            for process in self.processes:
                print(f"--- {process.log.name}\n" + "\n".join(process.text().splitlines()[-25:]))
        self.http.close()

    # jobs

    def submit(self, rows: Iterable[str | Mapping[str, Any]], **query: str) -> dict[str, Any]:
        lines = "".join(
            json.dumps({"prompt": row} if isinstance(row, str) else row) + "\n" for row in rows
        )
        answer = self.http.post(
            "/v1/jobs",
            params=query,
            content=lines,
            headers={"content-type": "application/x-ndjson"},
        )
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def job(self, id: str) -> dict[str, Any]:
        answer = self.http.get(f"/v1/jobs/{id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def finished(self, id: str) -> bool:
        try:
            return self.job(id)["state"] in FINAL
        except (httpx.TransportError, AssertionError):
            return False

    def wait(self, id: str, *, seconds: float = 120) -> dict[str, Any]:
        wait_until(lambda: self.finished(id), seconds=seconds, what=f"job {id} ends")
        return self.job(id)

    def wait_done(self, id: str, count: int, *, seconds: float = 120) -> None:
        wait_until(
            lambda: self.job(id)["counts"]["done"] >= count,
            seconds=seconds,
            what=f"{count} images of {id} done",
        )

    def images(self, id: str, **query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after: dict[str, str] = {}
        while True:
            page = self.http.get(
                f"/v1/jobs/{id}/images", params={"limit": "1000", **query, **after}
            ).json()
            found += page["data"]
            if not page["has_more"]:
                return found
            after = {"after": page["last_id"]}

    # the world behind the API

    def blobs(self) -> BlobStore:
        os.environ.update({k: v for k, v in self.env.items() if k.startswith("AWS_")})
        return open_store(self.settings)

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.settings.redis)

    def query(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        url = self.settings.database.replace("postgresql://", "postgresql+psycopg://")
        engine = sa.create_engine(url)
        try:
            with engine.connect() as connection:
                return [dict(r._mapping) for r in connection.execute(sa.text(statement), values)]
        finally:
            engine.dispose()

    def check(self, id: str) -> Counter[str]:
        """Asserts invariants 1 and 2 of a completed job; its images by state."""
        [job] = self.query("SELECT * FROM jobs WHERE public_id = :id", id=id)
        assert job["state"] == "completed", job["state"]
        rows = self.query('SELECT * FROM images WHERE job_id = :j ORDER BY "index"', j=job["id"])
        assert [r["index"] for r in rows] == list(range(job["total"]))
        states = Counter({2: "done", 3: "failed"}[r["state"]] for r in rows)
        [sums] = self.query(
            "SELECT sum(done) AS done, sum(failed) AS failed, sum(bytes) AS bytes,"
            " count(*) AS shards FROM job_counters WHERE job_id = :j AND closed",
            j=job["id"],
        )
        assert (sums["done"], sums["failed"]) == (states["done"], states["failed"])
        assert sums["shards"] == 16
        done = [r for r in rows if r["state"] == 2]
        assert len({(r["key"], r["offset"]) for r in done}) == len(done)
        assert sums["bytes"] == sum(r["bytes"] for r in done)
        self._check_objects(done)
        return states

    def _check_objects(self, done: list[dict[str, Any]]) -> None:
        blobs = self.blobs()
        parts: dict[str, bytes] = {}
        for row in done:
            key = row["key"]
            if row["length"] is None:
                data = blobs.read(key)
            else:
                if key not in parts:
                    parts[key] = blobs.read(key)
                data = parts[key][row["offset"] : row["offset"] + row["length"]]
            assert len(data) == row["bytes"]
            assert hashlib.sha256(data).digest() == bytes(row["sha256"])
            PIL.Image.open(io.BytesIO(data)).verify()

    def orphans(self, id: str) -> set[str]:
        """Objects of the job's generations that no row names; its sources and exports are not
        made by a generation."""
        [job] = self.query("SELECT id FROM jobs WHERE public_id = :id", id=id)
        keys = self.query("SELECT DISTINCT key FROM images WHERE job_id = :j", j=job["id"])
        made = {o.key for o in self.blobs().list(f"jobs/{id}/g")}
        return made - {r["key"] for r in keys}

    def incidents(self) -> list[dict[str, Any]]:
        return self.query("SELECT * FROM incidents")

    def freeze(self, worker: Process) -> None:
        """Stops a worker, but not while it holds SQLite's one write lock: then everybody waits
        for it, control too, which is another fault than a worker that is silent."""
        worker.signal(signal.SIGSTOP)
        while not self._writable():
            worker.signal(signal.SIGCONT)
            time.sleep(0.05)
            worker.signal(signal.SIGSTOP)

    def _writable(self) -> bool:
        url = sa.make_url(self.settings.database)
        if url.get_backend_name() != "sqlite":
            return True
        with closing(sqlite3.connect(str(url.database), timeout=2, isolation_level=None)) as db:
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            db.execute("ROLLBACK")
            return True
