"""Child processes that are started again when they die, with growing pauses. One that never
gets through its start is given up. Knows nothing of what they do."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from promptmill import errors

GIVE_UP_AFTER = 3  # failed starts
REFUSED = 2  # exit status of one that says that it would fail again: no other start is tried
SETTLED = 10.0  # seconds after which a start counts as a success, health file or not
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
_TETHER = Path(__file__).with_name("tether.py")


@dataclass(frozen=True, slots=True)
class Spec:
    """A command to keep alive. health: the file, `{pid}` filled in, whose being there shows
    that it got through its start. grace: seconds from SIGTERM to SIGKILL."""

    name: str
    command: Sequence[str]
    log: Path
    environ: Mapping[str, str]
    health: str = ""
    grace: float = 10.0


@dataclass(slots=True)
class _Child:
    spec: Spec
    process: subprocess.Popen[bytes] | None = None
    since: float = 0.0
    due: float | None = 0.0  # when to start it; None: it runs or is stopped
    failed_starts: int = 0  # in a row, before the first that went well
    settled: bool = False  # one start went well: it is never given up
    deaths: int = 0  # in a row, each soon after its start
    stopping: bool = False
    gone: threading.Event = field(default_factory=threading.Event)


class Children:
    """Starts, watches and stops children from one thread of its own, which lives as long as
    they do: they are killed when it ends. `told` gets a line for each thing worth telling."""

    def __init__(self, told: Callable[[str], None]) -> None:
        self._told = told
        self._children: dict[str, _Child] = {}
        self._lock = threading.Lock()
        self._poked: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._closed = False
        self.failed = threading.Event()
        self.failure = ""
        self._thread = threading.Thread(target=self._loop, name="children", daemon=True)
        self._thread.start()

    def start(self, spec: Spec) -> None:
        """Starts a child, soon."""
        with self._lock:
            self._children[spec.name] = _Child(spec)
        self._poked.put(None)

    def names(self) -> list[str]:
        """Those that are kept alive."""
        with self._lock:
            return list(self._children)

    def pids(self) -> dict[str, int]:
        """Those that run now."""
        with self._lock:
            return {
                name: child.process.pid
                for name, child in self._children.items()
                if child.process is not None and child.process.poll() is None
            }

    def ready(self) -> dict[str, int]:
        """Those that run and whose health file shows that they got through their start."""
        with self._lock:
            files = {name: child.spec.health for name, child in self._children.items()}
        running = self.pids()
        return {
            name: running[name]
            for name, file in files.items()
            if file and name in running and Path(file.format(pid=running[name])).exists()
        }

    def stop(self, names: Sequence[str]) -> None:
        """SIGTERM to these, SIGKILL to those that are still there after their grace."""
        with self._lock:
            stopped = [self._children.pop(name) for name in names if name in self._children]
            for child in stopped:
                child.stopping, child.due = True, None
                _signal(child, signal.SIGTERM)
        started = time.monotonic()
        for child in stopped:
            left = started + child.spec.grace - time.monotonic()
            if child.process is not None and not child.gone.wait(max(0.0, left)):
                self._told(f"{child.spec.name} does not stop: killed")
                _signal(child, signal.SIGKILL)
                child.gone.wait(5.0)

    def close(self) -> None:
        """Stops all that is left."""
        self.stop(self.names())
        self._closed = True
        self._poked.put(None)
        self._thread.join(5.0)

    def _loop(self) -> None:
        while not self._closed:
            with self._lock:
                now = time.monotonic()
                for child in self._children.values():
                    if child.due is not None and child.due <= now:
                        self._spawn(child)
                dues = [c.due for c in self._children.values() if c.due is not None]
            with suppress(queue.Empty):
                self._poked.get(timeout=max(0.0, min(dues) - now) if dues else None)

    def _spawn(self, child: _Child) -> None:
        spec = child.spec
        command = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), *spec.command]
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        with spec.log.open("ab") as log:
            child.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=dict(spec.environ),
                start_new_session=True,
            )
        child.since, child.due, child.gone = time.monotonic(), None, threading.Event()
        threading.Thread(
            target=self._await, args=(child, child.process, child.gone), daemon=True
        ).start()

    def _await(
        self, child: _Child, process: subprocess.Popen[bytes], gone: threading.Event
    ) -> None:
        code = process.wait()
        if process.stdin is not None:
            process.stdin.close()
        with self._lock:
            line = None if child.stopping else self._after_death(child, process.pid, code)
            gone.set()
        if line:
            self._told(line)
        self._poked.put(None)

    def _after_death(self, child: _Child, pid: int, code: int) -> str:
        """Decides when to start it again, if at all; a line to tell."""
        spec, lived = child.spec, time.monotonic() - child.since
        health = Path(spec.health.format(pid=pid)) if spec.health else None
        healthy = lived > SETTLED or (health is not None and health.exists())
        child.settled |= healthy
        if health is not None:
            health.unlink(missing_ok=True)
        child.failed_starts = child.failed_starts + 1 if code > 0 and not child.settled else 0
        child.deaths = 1 if lived > SETTLED else child.deaths + 1
        why = f"signal {-code}" if code < 0 else f"exit status {code}"
        last = last_line(spec.log) if code > 0 else ""
        hopeless = code == REFUSED and not child.settled
        if hopeless or child.failed_starts >= GIVE_UP_AFTER:
            self.failure = last or f"{spec.name} fails at its start ({why}): see {spec.log}"
            self.failed.set()
            return ""
        pause = min(FIRST_PAUSE * 2.0 ** (child.deaths - 1), LONGEST_PAUSE)
        child.due = time.monotonic() + pause
        detail = f": {last}" if last else ""
        return f"{spec.name} ended ({why}){detail}; started again in {pause:.1f} s"


def _signal(child: _Child, number: signal.Signals) -> None:
    if child.process is not None and child.process.poll() is None:
        with suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(child.process.pid, number)
            else:
                child.process.send_signal(number)


def last_line(log: Path) -> str:
    """The last line of a log that says something, without the tool's own name before it."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    told = [line.strip() for line in lines if line.strip()]
    return told[-1].removeprefix("promptmill: ") if told else ""


def raise_failure(children: Children) -> None:
    """Raises `errors.Error` when a child was given up."""
    if children.failed.is_set():
        raise errors.Error(children.failure)
