"""The embedded farm: Valkey on a unix socket, the API, control and workers as children of
this process, over SQLite and a folder, or over whatever the settings name instead."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Self

import httpx

from promptmill import children, datafolder, errors, settings, valkey

START_SECONDS = 120.0
WORKER_GRACE = 35.0  # a worker takes up to 30 s to finish what renders
LARGE_LOG = 10_000_000  # bytes; larger ones are set aside at the start


def _quiet(line: str) -> None:
    """Tells nobody."""


class Farm:
    """An embedded farm, running inside its `with` block (or from `start` to `stop`).

    environ: what PROMPTMILL_* settings are read from, and what the children inherit. port 0
    takes a free one. told: gets a line for each thing worth telling. Every argument that is
    None leaves the setting as it is.
    """

    def __init__(
        self,
        data_dir: str | Path | None = None,
        *,
        workers: int = 1,
        model: str | None = None,
        port: int | None = None,
        environ: Mapping[str, str] | None = None,
        told: Callable[[str], None] = _quiet,
    ) -> None:
        self._environ = dict(os.environ if environ is None else environ)
        given = settings.read(self._environ)
        given = replace(
            given,
            data_dir=Path(given.data_dir if data_dir is None else data_dir).resolve(),
            model=given.model if model is None else model,
            port=given.port if port is None else port,
        )
        self._embedded_redis = not given.redis_url
        self.settings = valkey.prepared(given)
        self._workers = workers
        self._told = told
        self._children: children.Children | None = None
        self._lock: IO[str] | None = None

    @property
    def url(self) -> str:
        host = self.settings.host
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104
        return (
            f"http://{f'[{host}]' if ':' in host and host[0] != '[' else host}:{self.settings.port}"
        )

    @property
    def data_dir(self) -> Path:
        return self.settings.data_dir

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when the API is ready; workers may still load. What the settings name (the
        model, Redis, the object store, the database) is looked at before anything that would
        fail over it is started. Raises `errors.Error`."""
        self.settings.refuse_open_farm()
        try:
            self._lock = datafolder.take(self.data_dir)
            self.settings = replace(self.settings, port=self._free_port())
            datafolder.sign(self._lock, self.url)
            self._forget_last_run()
            self._children = children.Children(self._told)
            if self._embedded_redis:
                self._children.start(self._spec("valkey", *valkey.command(self.data_dir)))
                self._until(lambda: valkey.answers(valkey.socket_path(self.data_dir)), "valkey")
            self._migrate()
            self._children.start(self._service("api"))
            self._children.start(self._service("control"))
            self.scale(self._workers)
            self._until(self._ready, "api")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops in order: workers drain, then control, the API, Valkey."""
        running, self._children = self._children, None
        if running is not None:
            running.stop([name for name in running.names() if name.startswith("worker")])
            running.stop(["control"])
            running.stop(["api"])
            running.close()
            if self._embedded_redis:
                valkey.forget(self.data_dir)
        if self._lock is not None:
            datafolder.leave(self._lock)
            self._lock = None

    def wait(self, stop: threading.Event) -> None:
        """Returns once `stop` is set; tells of each worker that has loaded its model. Raises
        `errors.Error` when a child was given up."""
        known: dict[str, int] = {}
        while not stop.wait(0.2):
            self.check()
            ready = self._running().ready()
            for name in sorted(name for name, pid in ready.items() if known.get(name) != pid):
                if name.startswith("worker-"):
                    self._told(f"{name} is ready")
            known = ready

    def check(self) -> None:
        """Raises `errors.Error` when a child was given up."""
        children.raise_failure(self._running())

    def scale(self, workers: int) -> None:
        """Starts or drains workers until there are so many."""
        running = self._running()
        names = {f"worker-{number}" for number in range(1, workers + 1)}
        present = {name for name in running.names() if name.startswith("worker-")}
        for name in sorted(names - present):
            running.start(self._service("worker", name=name))
        running.stop(sorted(present - names))
        self._workers = workers

    def pids(self) -> dict[str, int]:
        """Process ids by name: valkey, api, control, worker-1, …"""
        return self._running().pids()

    def environ(self) -> dict[str, str]:
        """The environment that makes another process part of this farm."""
        ours = self.settings
        root = Path(__file__).resolve().parents[1]
        paths = [str(root), *filter(None, [self._environ.get("PYTHONPATH")])]
        found = {"PYTHONPATH": os.pathsep.join(paths)} if "site-packages" not in root.parts else {}
        return (
            self._environ
            | found
            | {
                "PROMPTMILL_DATA_DIR": str(ours.data_dir),
                "PROMPTMILL_REDIS_URL": ours.redis,
                "PROMPTMILL_MODEL": ours.model,
                "PROMPTMILL_PORT": str(ours.port),
                "PROMPTMILL_URL": self.url,
                "PYTHONUNBUFFERED": "1",
            }
        )

    def _running(self) -> children.Children:
        if self._children is None:
            raise errors.Conflict("the farm is not running")
        return self._children

    def _free_port(self) -> int:
        host, port = self.settings.host, self.settings.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.create_server((host, port), family=family) as probe:
                return int(probe.getsockname()[1])
        except OSError as exc:
            raise errors.Conflict(
                f"port {port} on {host} is not free ({exc.strerror}): give another with --port"
            ) from exc

    def _forget_last_run(self) -> None:
        for stale in (self.data_dir / "health").glob("*.json"):
            stale.unlink(missing_ok=True)
        for log in (self.data_dir / "logs").glob("*.log"):
            if log.stat().st_size > LARGE_LOG:
                log.replace(log.with_suffix(".log.1"))

    def _spec(
        self, name: str, *command: str, service: str = "", grace: float = 10.0
    ) -> children.Spec:
        return children.Spec(
            name=name,
            command=command,
            log=self.data_dir / "logs" / f"{name}.log",
            environ=self.environ(),
            health=str(self.data_dir / "health" / f"{service}-{{pid}}.json") if service else "",
            grace=grace,
        )

    def _service(self, service: str, *, name: str = "") -> children.Spec:
        command = (sys.executable, "-m", "promptmill", service)
        grace = WORKER_GRACE if service == "worker" else 10.0
        return self._spec(name or service, *command, service=service, grace=grace)

    def _migrate(self) -> None:
        looks = ["redis", "storage", *(["model"] if self._workers else [])]
        first = [f"--first={look}" for look in looks]
        done = subprocess.run(
            [sys.executable, "-m", "promptmill", "migrate", *first],
            env=self.environ(),
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["the database cannot be prepared"]
            raise errors.Unavailable(lines[-1].removeprefix("promptmill: "))

    def _ready(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz", timeout=5.0).is_success
        return False

    def _until(self, holds: Callable[[], bool], name: str) -> None:
        """Waits for a child's start. Raises `errors.Error` when it is given up or late."""
        running, deadline = self._running(), time.monotonic() + START_SECONDS
        while not holds():
            children.raise_failure(running)
            if time.monotonic() > deadline:
                log = self.data_dir / "logs" / f"{name}.log"
                raise errors.Unavailable(f"{name} does not answer: see {log}")
            running.failed.wait(0.05)
