"""The supervisor of a farm under test: starts again whatever dies, as systemd or Kubernetes
would, wakes what stopped itself at a failpoint, and counts both."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.e2e.farm import Farm, Process

FROZEN_SECONDS = 2.0  # longer than the lease of the stories


class Keeper:
    """Watches API, control and workers of `farm`, and `others`, inside its `with` block.
    thaws: after how many seconds a stopped process goes on; None: it is not this keeper's
    business."""

    def __init__(self, farm: Farm, *others: Process, thaws: float | None = FROZEN_SECONDS) -> None:
        self.farm = farm
        self.others = list(others)
        self.deaths = 0
        self.thawed = 0
        self._thaws = thaws
        self._stopped: dict[int, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="keeper", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        farm = self.farm
        while not self._over.wait(0.05):
            farm.api = self._living(farm.api)
            farm.control = self._living(farm.control)
            farm.workers[:] = [self._living(worker) for worker in farm.workers]
            self.others[:] = [self._living(other) for other in self.others]

    def _living(self, process: Process) -> Process:
        if not process.alive:
            self.deaths += 1
            return self.farm.run(process.command)
        if self._thaws is not None:
            self._thaw(process, self._thaws)
        return process

    def _thaw(self, process: Process, seconds: float) -> None:
        pid = process.popen.pid
        if not is_stopped(pid):
            self._stopped.pop(pid, None)
        elif time.monotonic() - self._stopped.setdefault(pid, time.monotonic()) > seconds:
            process.signal(signal.SIGCONT)
            self.thawed += 1


def is_stopped(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")
    return False
