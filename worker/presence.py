"""What the registry of workers knows of this one."""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.engine import Engine, Held

BUSY, IDLE = "busy", "idle"


class Presence:
    """Thread-safe. Its calls raise `errors.RedisDown`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._telling = threading.Lock()
        self._told = ""  # the state that the registry has of this worker
        self._started = time.time()

    def told_idle(self) -> bool:
        """Whether the registry knows already that nothing is held; it is told if not. Only a
        worker that it calls idle is sent wake-ups, so one that was just told looks once more
        before it rests: work may have come in between."""
        engine = self._engine
        known = bool(engine.held()) or engine.draining.is_set() or self._told == IDLE
        if not known:
            self.report()
        return known

    def report(self) -> None:
        """Tells the registry what this worker does."""
        engine = self._engine
        with self._telling:  # a state that is over is never told after the one that is
            status = self.status()
            ttl = max(5.0, engine.settings.lease_seconds)
            engine.queue.report(engine.worker, status, ttl=ttl)
            self._told = status["state"]

    def status(self) -> dict[str, Any]:
        engine = self._engine
        leases = engine.held()
        held = [one.lease.id for one in leases]
        draining = engine.draining.is_set()
        return {
            "state": "draining" if draining else BUSY if held else IDLE,
            "model": engine.generator.name,
            "fingerprint": engine.fingerprint,
            "bucket": engine.measured.bucket,
            "batch": engine.measured.batch,
            "images": engine.measured.images,
            "failed": engine.measured.failed,
            "seconds": {
                name: round(spent, 3) for name, spent in dict(engine.measured.steps).items()
            },
            "images_per_second": round(engine.measured.rate(), 2),
            "memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            * (1 if sys.platform == "darwin" else 1024),
            "caps": dict(engine.renderer.caps),
            "shapes": dict(engine.capacity.rates),
            "rendering": self._rendering([one for one in leases if one.rendering]),
            "leases": held,
            "started_at": self._started,
        }

    def _rendering(self, active: Sequence[Held]) -> dict[str, Any] | None:
        """How far a generator that goes by steps has come, and for which jobs."""
        step, steps = self._engine.renderer.step
        if not active or not steps:
            return None
        jobs = sorted({job for one in active for job in one.jobs})
        measuring = self._engine.measuring
        return {"jobs": jobs, "step": step, "steps": steps, "measuring": measuring}
