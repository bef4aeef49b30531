"""A server process that a test owns: starting, waiting until it answers, killing. Knows
no particular server, and no pytest."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Self

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
# The kernel ties the child to the thread that made it, and whoever asks for a server may be
# a thread that ends before: one that lasts as long as the process makes them all.
_launcher = ThreadPoolExecutor(1, thread_name_prefix="launcher")


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


def beside_python(name: str) -> Path | None:
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
            self.process = _launcher.submit(
                subprocess.Popen,
                [*launch, *self.command()],
                cwd=self.directory,
                env={
                    k: v for k, v in os.environ.items() if not k.startswith(("PG", "PROMPTMILL_"))
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches the tests only: they stop it
            ).result()

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


def wait_until(
    condition: Callable[[], bool], *, seconds: float, what: str | Callable[[], str]
) -> None:
    """Waits for something outside this process, where there is no event to wait on; looks less
    often as it takes longer, since to ask costs a farm's processor, too."""
    started = time.monotonic()
    while not condition():
        waited = time.monotonic() - started
        if waited > seconds:
            told = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {seconds:g} s: {told}")
        time.sleep(min(0.1, max(0.02, waited / 20)))
