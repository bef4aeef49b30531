"""The heart of a worker: renews the leases of slots that move, ends a process that hangs,
tells the registry and the health file that it lives."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from promptmill import errors
from worker import memory

if TYPE_CHECKING:
    from worker.engine import Engine

log = logging.getLogger(__name__)

STALL_LEAST = 20.0  # seconds without progress after which a slot may count as hung
HUNG = 70  # exit status of a worker that its watchdog ended
COSTS_EVERY = 30.0  # seconds


class Heart(threading.Thread):
    """Beats until the engine has stopped and its slots have ended."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(name="heart", daemon=True)
        self.engine = engine
        self.lease_seconds = engine.settings.lease_seconds
        self._growth = memory.Growth(engine.settings.recycle_bytes)
        self._leaving = False
        folder = Path(engine.settings.data_dir) / "health"
        self._health = folder / f"worker-{os.getpid()}.json"

    def run(self) -> None:
        period = min(1.0, self.lease_seconds / 4)
        costs_at = time.monotonic() + COSTS_EVERY / 6
        done = False
        while True:
            try:
                self.beat()
                self.engine.presence.report()
                self.recycle()
                if time.monotonic() > costs_at:
                    self.engine.capacity.remember_costs(self.engine.measured)
                    costs_at = time.monotonic() + COSTS_EVERY
            except errors.Unavailable as outage:
                log.info("heartbeat waits: %s", outage)
            except Exception:  # without a heart every lease would expire
                log.exception("heartbeat failed")
            self.write_health()
            if done and not any(slot.is_alive() for slot in self.engine.slots):
                self._health.unlink(missing_ok=True)
                return
            done = self.engine.stopping.wait(period)

    def beat(self) -> None:
        """Renews the leases that are held. A slot that hangs ends the process, so that its
        lease expires and the supervisor starts a fresh worker."""
        limit, now = self.stall(), time.monotonic()
        held = self.engine.held()
        for one in held:
            if one.slot.moved is not None and now - one.slot.moved > limit:
                log.critical("%s has not moved for %.0f s: the worker ends", one.slot.name, limit)
                os._exit(HUNG)
        if held:
            beats = {one.lease.id: one.rendering for one in held}
            self.engine.queue.beat(self.engine.worker, beats, ttl=self.lease_seconds)

    def stall(self) -> float:
        """Two lease periods, or ten micro-batches where those take longer."""
        caps = self.engine.generator.caps
        batch = max(self.engine.measured.batch_seconds, caps.cost * caps.max_batch)
        return max(STALL_LEAST, 2 * self.lease_seconds, 10 * batch)

    def recycle(self) -> None:
        """A worker whose memory grows leases no more, and ends when it holds nothing; its
        supervisor starts a fresh one."""
        batches = self.engine.measured.batches
        if not self._leaving and self._growth.excessive(batches=batches, now=memory.held()):
            log.warning("memory has grown by more than PROMPTMILL_RECYCLE_BYTES: starting anew")
            self._leaving = True
            self.engine.drain()
        elif self._leaving and not self.engine.held() and not self.engine.stopping.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    def write_health(self) -> None:
        """The file that `promptmill doctor --check worker` reads."""
        fresh = self._health.with_suffix(".new")
        try:
            self._health.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_text(json.dumps({"at": time.time(), "worker": self.engine.worker}))
            fresh.replace(self._health)
        except OSError as error:
            log.warning("PROMPTMILL_DATA_DIR cannot be written: %s", error)
