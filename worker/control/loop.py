"""Duties and the lines that run them: a line is one thread that runs its duties in turn,
each at its own period. A duty that fails is logged, counted and tried again at its next
period; it stops no other. Knows nothing of what the duties do."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from promptmill import errors

log = logging.getLogger("promptmill.control")


@dataclass(frozen=True, slots=True)
class Duty:
    """`step` does one round of work, every `period` seconds, after at least `rest` times
    as long as the last round took."""

    name: str
    period: float
    step: Callable[[], object]
    rest: float = 0.0


@dataclass(slots=True)
class Record:
    """What became of one duty: its rounds, its failures and the last of them."""

    rounds: int = 0
    failures: int = 0
    succeeded_at: float | None = None
    error: str | None = None


@dataclass(slots=True)
class Line:
    """Runs `duties` in one daemon thread until `stop` is set. `beat_at` (monotonic) moves
    with every finished round; `beat()` is for rounds that take long."""

    name: str
    stop: threading.Event
    duties: list[Duty] = field(default_factory=list)
    watched: bool = True  # false: its rounds may take as long as they like
    beat_at: float = field(default_factory=time.monotonic)
    records: dict[str, Record] = field(default_factory=dict)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self.records = {duty.name: Record() for duty in self.duties}
        self.beat()
        self._thread = threading.Thread(target=self.run, name=f"control-{self.name}", daemon=True)
        self._thread.start()

    def join(self, timeout: float) -> None:
        if self._thread is not None:
            self._thread.join(timeout)

    def beat(self) -> None:
        self.beat_at = time.monotonic()

    def run(self) -> None:
        due = dict.fromkeys(self.records, 0.0)
        while not self.stop.is_set():
            for duty in self.duties:
                if due[duty.name] <= time.monotonic() and not self.stop.is_set():
                    begun = time.monotonic()
                    self._round(duty)
                    took = time.monotonic() - begun
                    due[duty.name] = begun + took + max(duty.period, duty.rest * took)
                    self.beat()
            self.stop.wait(max(0.0, min(due.values()) - time.monotonic()))

    def _round(self, duty: Duty) -> None:
        record = self.records[duty.name]
        record.rounds += 1
        try:
            duty.step()
        except errors.Unavailable as error:
            log.warning("control.unavailable", extra={"duty": duty.name, "error": str(error)})
            record.failures, record.error = record.failures + 1, str(error)
        except Exception as error:  # one duty's defect must not end the others
            log.exception("control.failed", extra={"duty": duty.name})
            record.failures, record.error = record.failures + 1, type(error).__qualname__
        else:
            record.succeeded_at, record.error = time.time(), None
