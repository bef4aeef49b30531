"""The control process: the composition root. Any number of them may run; one leads, and a
standby takes over when its lock is free. Nothing imports this but the command line."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass

from celery import Celery

from promptmill import errors, failpoints, telemetry, traces, wakeups
from promptmill.blobs import BlobStore, open_store
from promptmill.redis_queue import RedisQueue
from promptmill.settings import Settings
from promptmill.store.database import Database
from promptmill.store.leadership import Leadership
from promptmill.traces import UNTRACED, Traces
from worker.control import webhook
from worker.control.audit import Audit
from worker.control.ears import PAUSE, Ears
from worker.control.exporting import Exporting
from worker.control.finaliser import Finaliser
from worker.control.health import Health
from worker.control.loop import Duty, Line
from worker.control.outbox import Outbox, Share
from worker.control.queues import Queues
from worker.control.reaper import Reaper
from worker.control.rebuild import Rebuild
from worker.control.sweep import Sweep
from worker.control.wake import Wake

log = logging.getLogger("promptmill.control")

TICK = 1.0  # seconds between two looks at the lock
JOIN_SECONDS = 2.0
OUTBOX_LINES = 4


@dataclass(frozen=True, slots=True)
class Farm:
    """What the duties work on."""

    settings: Settings
    db: Database
    blobs: BlobStore
    queues: Queues
    celery: Celery
    traces: Traces = UNTRACED

    @staticmethod
    def open(settings: Settings, traces: Traces = UNTRACED) -> Farm:
        """Raises `errors.Error` naming the setting of what cannot be reached."""
        db = Database(settings.database)
        db.require_schema()
        webhook.key_of(settings.webhook_secret)
        queues = Queues(db, lambda model: RedisQueue(settings.redis, model))
        queues.of(settings.model_name).ping()
        blobs = open_store(settings)
        blobs.probe()
        return Farm(settings, db, blobs, queues, wakeups.celery_app(settings), traces)

    def close(self) -> None:
        self.queues.close()
        self.db.close()


class Term:
    """One leadership: fresh duties on their lines, so that nothing remembered from an
    earlier term is trusted."""

    def __init__(self, farm: Farm) -> None:
        db, queues, settings = farm.db, farm.queues, farm.settings
        self._over = threading.Event()
        self.audit = Audit(db, queues)
        self.reaper = Reaper(db, queues, settings)
        self.finaliser = Finaliser(db, queues, settings, traces=farm.traces)
        self.ears = Ears(queues, self.finaliser.look, stop=self._over)
        self.wake = Wake(queues, farm.celery)
        self.sweep = Sweep(db, farm.blobs, settings, stop=self._over)
        self.exporting = Exporting(db, stop=self._over)
        self.outboxes = [
            Outbox(db, settings, share=Share(number, OUTBOX_LINES))
            for number in range(OUTBOX_LINES)
        ]
        repairs = Line("repairs", self._over)
        self.rebuild = Rebuild(db, queues, stop=self._over, beat=repairs.beat)
        repairs.duties += [
            Duty("rebuild", 1.0, self.rebuild.step),
            Duty("audit", 2.0, self.audit.step),
            Duty("strays", 10.0, self.audit.strays),
        ]
        reaper = self._line("reaper", min(1.0, settings.lease_seconds / 4), self.reaper.step)
        # It adds up the counters of every open job: at 100,000 of them it goes slower.
        finaliser = Line(
            "finaliser", self._over, [Duty("finaliser", 0.5, self.finaliser.step, rest=4.0)]
        )
        wake = self._line("wake", 1.0, self.wake.step)
        exports = Line(
            "exports",
            self._over,
            [Duty("plans", 1.0, self.exporting.step, rest=2.0)],
            watched=False,
        )
        sweeping = self._sweeping(settings.lease_seconds)
        self.lines = [repairs, reaper, finaliser, *self._hearing(), wake, exports, sweeping]
        self.lines += [
            self._line(f"outbox-{number}", 1.0, outbox.step)
            for number, outbox in enumerate(self.outboxes)
        ]

    def _line(self, name: str, period: float, step: Callable[[], object]) -> Line:
        return Line(name, self._over, [Duty(name, period, step)])

    def _hearing(self) -> list[Line]:
        return [
            self._line("ears", 5.0, self.ears.step),
            self._line("heard", PAUSE, self.ears.tell),
        ]

    def _sweeping(self, lease_seconds: float) -> Line:
        duties = [
            Duty("sweep", min(10.0, lease_seconds), self.sweep.generations),
            Duty("tombstones", 10.0, self.sweep.tombstones),
            Duty("exports", 10.0, self.sweep.exports),
            Duty("retention", 60.0, self.sweep.retention),
            Duty("uploads", 60.0, self.sweep.uploads),
            Duty("files", 10.0, self.sweep.files),
            Duty("parts", 10.0, self.sweep.parts),
        ]
        return Line("sweep", self._over, duties, watched=False)

    def start(self) -> None:
        for line in self.lines:
            line.start()

    def end(self) -> None:
        """Bounded: a line that is still at it works on with daemon threads' rights only,
        and everything that it does is safe beside another leader."""
        self._over.set()
        for line in self.lines:
            line.join(JOIN_SECONDS / len(self.lines))
        self.ears.join(JOIN_SECONDS / 2)

    def counts(self) -> dict[str, int]:
        return {
            "repairs": self.audit.repairs,
            "dropped": self.audit.dropped,
            "rebuilt": self.rebuild.rebuilt,
            "reaped": self.reaper.reaped,
            "crashed": self.reaper.failed,
            "swept": self.sweep.swept,
            "planned": self.exporting.planned,
            "webhooks": sum(outbox.sent for outbox in self.outboxes),
        }


class Control:
    """Waits for the lock, leads while it holds it, until `stop` is set."""

    def __init__(self, farm: Farm, stop: threading.Event) -> None:
        self._farm = farm
        self._stop = stop
        self._health = Health(farm.settings.data_dir)

    def run(self) -> None:
        leadership = self._farm.db.leadership(self._farm.settings.data_dir / "control.lock")
        try:
            while not self._stop.is_set():
                if leadership.acquire():
                    self._lead(leadership)
                self._health.write(leader=False, lines=[], counts={})
                self._stop.wait(TICK)
        finally:
            leadership.release()
            self._health.remove()

    def _lead(self, leadership: Leadership) -> None:
        term = Term(self._farm)
        log.info("control.leads")
        term.start()
        try:
            while leadership.held():
                self._health.write(leader=True, lines=term.lines, counts=term.counts())
                if self._stop.wait(TICK):
                    break
        finally:
            term.end()
            log.info("control.steps_down")


def run(settings: Settings) -> int:
    """The process, until SIGTERM or SIGINT; its exit status. Raises `errors.Error` with one
    line that names the setting and the remedy when it cannot start."""
    telemetry.configure("control", settings.log_level)
    tracing = traces.configure("control", settings.otel_endpoint)
    failpoints.arm(settings.failpoints)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    farm = Farm.open(settings, tracing)
    try:
        Control(farm, stop).run()
    except OSError as error:
        raise errors.SettingInvalid(
            f"PROMPTMILL_DATA_DIR={settings.data_dir} cannot be used: {error}", param="DATA_DIR"
        ) from error
    finally:
        farm.close()
        tracing.close()
    return 0
