"""The engine of one worker process: its slots, the leases they hold, waiting, draining. It
outlives every Celery task; a wake-up only pokes it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from promptmill import errors, failpoints, jobs, leases
from promptmill.blobs import BlobStore
from promptmill.queue import Cold, Queue
from promptmill.records import Work
from promptmill.settings import Settings
from promptmill.store import images
from promptmill.store.database import Database
from promptmill.traces import UNTRACED, Traces
from worker.calls import Calls
from worker.capacity import Capacity
from worker.checks import Checks
from worker.expand.expander import Expander
from worker.expansion import Expansion
from worker.generators.base import Generator
from worker.heart import Heart
from worker.inputs import Inputs, Ready
from worker.measured import Measured
from worker.outcomes import Outcome
from worker.presence import Presence
from worker.render import Renderer, Turn
from worker.slot import Slot

log = logging.getLogger(__name__)

NO_CHECKS = Checks()
SEGMENTS = 8 << 20  # bytes of segments that are being worked on; what is done is not read again
IDLE_POLL = 1.0  # seconds between two looks at an empty queue without a wake-up
ASKED = 10.0  # seconds after which nobody asks for single pictures any more
PROBE_FIRST, PROBE_MOST = 0.25, 10.0  # seconds between probes of a server that is down


class Events(Protocol):
    def begun(self, lease: str, details: Mapping[str, Any]) -> None: ...
    def ended(self, lease: str, *, seconds: float, result: str) -> None: ...
    def given_back(self, lease: str, reason: str) -> None: ...


class NoEvents:
    def begun(self, lease: str, details: Mapping[str, Any]) -> None:
        """Nobody watches."""

    def ended(self, lease: str, *, seconds: float, result: str) -> None:
        """Nobody watches."""

    def given_back(self, lease: str, reason: str) -> None:
        """Nobody watches."""


@dataclass(slots=True)
class Held:
    """A lease that a slot of this process holds. jobs: public ids, of those that it renders for
    once it does."""

    lease: leases.Lease
    slot: Slot
    rendering: bool = False
    jobs: Sequence[str] = ()


class Engine:
    """One generator and the slots that feed it. Everything it is given is thread-safe."""

    def __init__(
        self,
        settings: Settings,
        *,
        worker: str,
        generator: Generator,
        fingerprint: str,
        db: Database,
        blobs: BlobStore,
        queue: Queue,
        checks: Checks = NO_CHECKS,
        expander: Expander | None = None,
    ) -> None:
        self.settings = settings
        self.worker = worker
        self.generator = generator
        self.fingerprint = fingerprint
        self.db = db
        self.blobs = blobs
        self.queue = queue
        self.events: Events = NoEvents()
        self.traces: Traces = UNTRACED
        self.segments = images.SegmentCache(SEGMENTS)
        self.inputs = Inputs(blobs)
        self.checks = checks
        self.expansion = Expansion(expander)
        self.pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="pool")
        self.measured = Measured()
        self.measuring = False  # what renders is no picture: a bucket's batch shape is looked for
        self.stopping = threading.Event()
        self.draining = threading.Event()
        self._changed = threading.Condition()
        self._pokes = 0
        self._held: dict[str, Held] = {}
        where = generator.resolve(device=settings.device, quantization=settings.quantization)
        self.on_processor = where.device == "cpu"
        self.turn = Turn(elsewhere=not self.on_processor)
        self.place = f"{fingerprint} on {settings.device}"
        self.capacity = Capacity(generator, self.place, db=db, queue=queue)
        self.renderer = Renderer(
            generator,
            fingerprint=fingerprint,
            caps=self.capacity.known(),
            lower=self.capacity.lower,
        )
        self.slots = [
            Slot(self, name=f"slot-{number}", interactive=number == 0)
            for number in range(settings.slots)
        ]
        self.presence = Presence(self)
        self._heart = Heart(self)
        self._calls = Calls(queue, self.poke, stop=self.stopping)

    # life

    def start(self) -> None:
        for bucket, cap in self.renderer.caps.items():
            self.queue.set_cap(bucket, cap)
        self._heart.start()  # first: it tells the registry of this worker
        for slot in self.slots:
            slot.start()
        self._calls.start()

    def drain(self) -> None:
        """Stop leasing; finish what is rendering, give back the rest."""
        self.draining.set()
        self.poke()

    def resume(self) -> None:
        self.draining.clear()
        self.poke()

    def stop(self, seconds: float) -> bool:
        """Drains and waits for the slots; false when one is still busy at the deadline."""
        deadline = time.monotonic() + seconds
        self.drain()
        self.stopping.set()
        self.poke()
        for slot in self.slots:
            slot.join(max(0.0, deadline - time.monotonic()))
        for thread in (self._heart, self._calls):
            thread.join(max(0.1, deadline - time.monotonic()))
        idle = not any(slot.is_alive() for slot in self.slots)
        self.pool.shutdown(wait=idle, cancel_futures=True)
        try:
            self.queue.forget(self.worker)
        except errors.RedisDown:
            log.info("redis is down: the registry forgets this worker by itself")
        return idle

    # waiting

    def poke(self) -> None:
        """There may be work: idle slots look at once."""
        with self._changed:
            self._pokes += 1
            self._changed.notify_all()

    def rest(self, seen: int, seconds: float = IDLE_POLL) -> int:
        """Waits for the next poke after number `seen`, or `seconds`; returns the number."""
        with self._changed:
            self._changed.wait_for(lambda: self._pokes > seen or self.stopping.is_set(), seconds)
            return self._pokes

    def outlast(self, outage: errors.Unavailable) -> None:
        """Returns once the server that failed answers again, or the engine stops."""
        probe = self._probe_of(outage)
        pause = PROBE_FIRST
        log.warning("waiting: %s", outage)
        while not self.stopping.wait(pause):
            try:
                probe()
            except errors.Unavailable:
                pause = min(pause * 2, PROBE_MOST)
            else:
                return

    def _probe_of(self, outage: errors.Unavailable) -> Callable[[], object]:
        if isinstance(outage, errors.StorageDown):
            return self.blobs.probe
        if isinstance(outage, errors.RedisDown):
            return self.queue.ping
        return self.db.require_schema

    # leases

    def lease(self, slot: Slot) -> leases.Lease | None:
        """The next micro-batch for this slot, held and heartbeated from now on."""
        if self.draining.is_set():
            return None
        try:
            lease = self.queue.lease(
                self.worker,
                self.generator.caps.max_batch,
                ttl=self.settings.lease_seconds,
                interactive=slot.interactive,
                mix=not self.generator.caps.portion,
            )
        except Cold:
            return None
        if lease is not None:
            failpoints.reach("lease.replied")
            with self._changed:
                self._held[lease.id] = Held(lease, slot)
        return lease

    def held(self) -> list[Held]:
        with self._changed:
            return list(self._held.values())

    def portions(self, ready: Sequence[Ready], *, interactive: bool) -> list[Sequence[Ready]]:
        """What is rendered in one turn each: all of it, or, while somebody asks for single
        pictures, as much as the generator names, so that they need not wait for the rest."""
        caps = self.generator.caps
        size = caps.portion if caps.batch_invariant else 0
        if not size or interactive or not self.turn.asked_first(within=ASKED):
            size = max(1, len(ready))
        return [ready[first : first + size] for first in range(0, len(ready), size)]

    def render(
        self, bucket: str, tasks: Sequence[Ready], *, progress: Callable[[], None]
    ) -> list[Outcome]:
        """Runs the generator and measures it. The caller holds the turn."""
        self.measuring = True
        try:
            self.capacity.settle(self.renderer, bucket, tasks[0], progress=progress)
        finally:
            self.measuring = False
        begun = time.monotonic()
        items, inputs = [task.item for task in tasks], [task.input for task in tasks]
        outcomes = self.renderer.render(bucket, items, inputs, progress=progress)
        if self.turn.asked_first(within=ASKED):  # one thread at a time leaves them a core
            outcomes = self.renderer.scored(outcomes)
        self.measured.add(bucket, len(items), time.monotonic() - begun)
        return list(map(self.expansion.signed, outcomes))

    def scored(self, outcomes: Sequence[tuple[Work, Outcome]]) -> list[tuple[Work, Outcome]]:
        """With a score for each picture, where the generator gives any. In nobody's turn."""
        scored = self.renderer.scored([outcome for _, outcome in outcomes])
        return [(work, one) for (work, _), one in zip(outcomes, scored, strict=True)]

    def rendering(self, lease: leases.Lease, public_jobs: Sequence[str] = ()) -> None:
        """Stamps that rendering begins, for these jobs. A lone image that came back from a dead
        worker is stamped at once, so that a death which it causes is charged to it."""
        with self._changed:
            held = self._held[lease.id]
            held.rendering, held.jobs = True, public_jobs
        if lease.spans[0].attempt >= jobs.SOLO_ATTEMPT:
            self.queue.beat(self.worker, {lease.id: True}, ttl=self.settings.lease_seconds)

    def rendered(self, lease: leases.Lease) -> None:
        """A death from here on is not the doing of what was rendered."""
        with self._changed:
            self._held[lease.id].rendering = False

    def owns(self, lease: leases.Lease) -> bool:
        """Asks the queue whether this worker still holds the lease."""
        gone = self.queue.beat(self.worker, {lease.id: False}, ttl=self.settings.lease_seconds)
        return lease.id not in gone

    def release(self, lease: leases.Lease) -> None:
        with self._changed:
            self._held.pop(lease.id, None)

    def publish(self, public_jobs: Iterable[str]) -> None:
        """Tells whoever waits that these jobs moved. Best effort: they also look."""
        try:
            for job in public_jobs:
                self.queue.publish(job)
        except errors.RedisDown as outage:
            log.info("nobody is told of the commit: %s", outage)
