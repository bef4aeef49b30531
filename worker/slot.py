"""The story of promptmill on one page: a slot leases a micro-batch and carries it through
lease → fetch → gather → render → encode → put → commit → acknowledge. A few identical slots run
beside each other; while one renders, the others fetch the next and finish the last."""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from promptmill import errors, failpoints
from promptmill.jobs import COUNTER_SHARDS, SOLO_ATTEMPT, Item
from promptmill.leases import Lease
from promptmill.records import Work
from promptmill.store import control, images, jobs
from promptmill.traces import Batch
from worker import filing, priority
from worker.filing import File, Kept, Refused
from worker.inputs import Ready
from worker.insistence import Insistence
from worker.measured import Steps
from worker.outcomes import Fault, Outcome
from worker.render import Abandoned

if TYPE_CHECKING:
    from worker.engine import Engine

log = logging.getLogger(__name__)

LARGE = 256 * 256  # pixels above which pictures are encoded beside each other
ERRORS_ALLOWED = 3  # of ours, unexplained, that an image may meet alone
PAUSE = 1.0  # seconds after an error that no step took, and after one of an image alone
LOOK_EVERY = 0.5  # seconds for which a look at who still wants what is rendered counts


class GiveBack(Exception):
    """The engine drains: what has not begun to render goes back, uncharged."""


class Slot(threading.Thread):
    """One thread of the loop. moved: when it last made progress, by `time.monotonic`; None
    while it waits for its turn at the generator, which is not its doing."""

    def __init__(self, engine: Engine, *, name: str, interactive: bool) -> None:
        super().__init__(name=name, daemon=True)
        self.engine = engine
        self.interactive = interactive
        self.moved: float | None = time.monotonic()
        self._shard = zlib.crc32(f"{engine.worker}/{name}".encode()) % COUNTER_SHARDS

    def run(self) -> None:
        if self.engine.on_processor and not self.interactive:
            priority.step_back()
        seen, rested = 0, False
        while not self.engine.stopping.is_set():
            self._move()
            try:
                lease = self.engine.lease(self)
                if lease is None:
                    if self.engine.presence.told_idle():
                        seen, rested = self.engine.rest(seen), True
                    continue
                if rested and not lease.interactive:
                    self.engine.poke()  # a wake-up reaches no worker that still does something
                rested = False
                with self.engine.turn.ahead() if lease.interactive else nullcontext():
                    self.carry(lease)
            except errors.Unavailable as outage:
                self.engine.outlast(outage)
            except Exception:  # what it held expires; its thread must not end
                log.exception("%s goes on", self.name)
                self.engine.stopping.wait(PAUSE)

    def carry(self, lease: Lease) -> None:
        """One micro-batch from lease to acknowledgement. Whatever goes wrong, its images
        are either committed or back in the queue."""
        outage: errors.Unavailable | None = None
        failure: type[Exception] | None = None
        works: list[Work] = []
        steps = Steps()
        try:
            failpoints.reach("slot.leased")
            works = self.fetch(lease)
            steps.end("fetch")
            fetched = steps.last
            failpoints.reach("slot.fetched")
            ready, lacking = self.gather(works)
            outcomes = self.render(lease, ready, looked=fetched)
            self.engine.rendered(lease)
            steps.end("render")
            failpoints.reach("slot.rendered")
            files, refused = self.encode(outcomes)
            steps.end("encode")
            insist = Insistence(
                stopping=self.engine.stopping, wanted=lambda: self._wanted(ready), moved=self._move
            )
            failpoints.reach("slot.encoded")
            kept = insist.on(lambda: self.put(lease, files))
            steps.end("put")
            failpoints.reach("slot.put")
            insist.on(lambda: self.commit(lease, kept, []))
            insist.on(lambda: self.commit(lease, [], [*refused, *lacking]))
            steps.end("commit")
            failpoints.reach("slot.committed")
            self.acknowledge(lease)
            steps.end("acknowledge")
            self.engine.measured.over(steps.seconds)
            seconds = sum(steps.seconds.values())
            self.engine.events.ended(lease.id, seconds=seconds, result=f"{len(kept)} images")
        except GiveBack:
            self.give_back(lease, charge=False, reason="draining")
        except errors.Unavailable as error:
            outage, failure = error, type(error)
            self.give_back(lease, charge=False, reason=str(error))
        except Exception as error:
            log.exception("lease %s failed", lease.id)
            failure = type(error)
            self.isolate(lease, error)
        finally:
            self.engine.release(lease)
            self.engine.traces.batch(Batch(lease, works, steps.began, steps.seconds, failure))
        if outage is not None:
            self.engine.outlast(outage)

    # the steps

    def fetch(self, lease: Lease) -> list[Work]:
        """The items of the lease that still need a picture."""
        works = images.fetch(self.engine.db, lease.spans, self.engine.segments)
        self._move()
        return works

    def gather(self, works: Sequence[Work]) -> tuple[list[Ready], list[Refused]]:
        """What items need beyond their rows: source pictures, prompts written out. One whose
        source is gone, or whose prompt may not be rendered, is refused by itself."""
        items = self.engine.expansion.items([work.item for work in works], progress=self._move)
        found = [
            (work, self._gathered(work, item)) for work, item in zip(works, items, strict=True)
        ]
        ready = [one for _, one in found if isinstance(one, Ready)]
        lacking = [Refused(work, one) for work, one in found if isinstance(one, Fault)]
        self._move()
        return ready, lacking

    def render(
        self, lease: Lease, ready: Sequence[Ready], *, looked: float
    ) -> list[tuple[Work, Outcome]]:
        """One forward pass, or as many as memory, faults and whoever waits for a single
        picture ask for, each portion under the lock. looked: when the database last said
        that the items are wanted; asked again before the wait for the lock, where it can."""
        outcomes: list[tuple[Work, Outcome]] = []
        self.engine.renderer.prepare([one.item for one in ready])
        for number, portion in enumerate(
            self.engine.portions(ready, interactive=lease.interactive)
        ):
            wanted, looked = self._wanted_since(looked, portion)
            self.moved = None
            with self.engine.turn.take(first=lease.interactive):
                self._move()
                if number == 0 and self.engine.draining.is_set():
                    raise GiveBack
                wanted, looked = self._wanted_since(looked, wanted)
                outcomes += self._render(lease, wanted, begun=bool(outcomes))
        return outcomes

    def encode(self, outcomes: Sequence[tuple[Work, Outcome]]) -> tuple[list[File], list[Refused]]:
        """Pictures that may be given out become files; faults stay faults."""
        seen = self.engine.checks.of_pictures(self.engine.scored(outcomes))
        pictures, refused = filing.sort_out(seen)
        large = bool(pictures) and pictures[0][1].pixels[..., 0].size > LARGE
        run = self.engine.pool.map if large else map
        files = list(run(filing.to_file, pictures))
        self._move()
        return files, refused

    def put(self, lease: Lease, files: Sequence[File]) -> list[Kept]:
        """Creates the objects: one an image, or one tar part a job. Never overwrites."""
        bundles = filing.bundle(files, lease)
        stored = self.engine.blobs.create_many([bundle.object for bundle in bundles])
        self._move()
        pairs = zip(bundles, stored, strict=True)
        return [kept for bundle, there in pairs for kept in filing.keep(bundle, there)]

    def commit(self, lease: Lease, kept: Sequence[Kept], refused: Sequence[Refused]) -> None:
        """One transaction for the micro-batch. Only the owner of a lease may fail an
        image: another worker may be rendering it well."""
        worker, fingerprint = self.engine.worker, self.engine.fingerprint
        results = [filing.done(one, worker) for one in kept]
        if refused and self.engine.owns(lease):
            results += [filing.failed(one, worker, fingerprint=fingerprint) for one in refused]
        if results:
            images.commit(self.engine.db, results, shard=self._shard)
            self.engine.measured.failed += len(results) - len(kept)
            works = [one.file.work for one in kept] + [one.work for one in refused]
            self.engine.publish({work.job for work in works})
        self._move()

    def acknowledge(self, lease: Lease) -> None:
        """The lease is over. A lost reply is harmless: it expires, and whoever gets its
        images finds them done."""
        try:
            self.engine.queue.ack(lease.id)
            failpoints.reach("slot.acknowledged")
        except errors.RedisDown as outage:
            log.info("lease %s expires by itself: %s", lease.id, outage)

    # when a step fails

    def give_back(self, lease: Lease, *, charge: bool, reason: str) -> None:
        self.engine.events.given_back(lease.id, reason)
        try:
            self.engine.queue.nack(lease, lease.spans, charge=charge)
            failpoints.reach("slot.returned")
        except errors.RedisDown as outage:
            log.info("lease %s expires by itself: %s", lease.id, outage)

    def isolate(self, lease: Lease, error: Exception) -> None:
        """An error of ours, not of the generator: the images come back in ever smaller
        leases, and one that meets such errors alone again and again, not all at once, is
        failed with the reason. Leases that were lost count for nothing here."""
        if lease.count == 1 and lease.spans[0].attempt >= SOLO_ATTEMPT:
            if self._fail_alone(lease, error):
                return
            self.engine.stopping.wait(PAUSE)  # so that what passes soon is met once
        self.give_back(lease, charge=True, reason=type(error).__name__)

    def _fail_alone(self, lease: Lease, error: Exception) -> bool:
        fault = Fault("internal_error", f"{type(error).__name__}: {error}")
        span = lease.spans[0]
        try:
            control.record_incidents(self.engine.db, lease.incidents("error"))
            met = control.charged(self.engine.db, span.lane, span.start, "error")
            if met < ERRORS_ALLOWED:
                return False
            self.commit(lease, [], [Refused(work, fault) for work in self.fetch(lease)])
            self.acknowledge(lease)
        except errors.Error:
            log.exception("lease %s could not be failed", lease.id)
            return False
        return True

    # parts of the steps

    def _render(
        self, lease: Lease, wanted: Sequence[Ready], *, begun: bool
    ) -> list[tuple[Work, Outcome]]:
        """The caller holds the turn. begun: others of the lease were rendered before."""
        if not wanted:
            return []
        works = [one.work for one in wanted]
        if not begun:
            self._begin(lease, works)
        try:
            progress = self._steps(wanted)
            outcomes = self.engine.render(lease.bucket, wanted, progress=progress)
        except Abandoned:
            return []
        return list(zip(works, outcomes, strict=True))

    def _gathered(self, work: Work, item: Item | Fault) -> Ready | Fault:
        """The row's own prompt is checked, and what was made of it."""
        if isinstance(item, Fault):
            return item
        for asked in {work.item.prompt: work.item, item.prompt: item}.values():
            if (refused := self.engine.checks.of_prompt(asked)) is not None:
                return refused
        input = self.engine.inputs.of(work)
        return input if isinstance(input, Fault) else Ready(work, item, input)

    def _move(self) -> None:
        self.moved = time.monotonic()

    def _steps(self, ready: Sequence[Ready]) -> Callable[[], None]:
        """Progress inside a forward pass: the slot moves, and a batch of which nobody wants
        anything any more is abandoned between two steps."""
        looked = time.monotonic()

        def progress() -> None:
            nonlocal looked
            self._move()
            if time.monotonic() - looked < LOOK_EVERY:
                return
            looked = time.monotonic()
            if not self._wanted(ready):
                raise Abandoned

        return progress

    def _wanted_since(self, looked: float, ready: Sequence[Ready]) -> tuple[Sequence[Ready], float]:
        """What is still wanted, and when that was last looked up."""
        if time.monotonic() - looked < LOOK_EVERY:
            return ready, looked
        return self._still_wanted(ready), time.monotonic()

    def _still_wanted(self, ready: Sequence[Ready]) -> list[Ready]:
        """Leaves out the images of jobs that were cancelled, paused or restarted since."""
        pairs = {one.work.job_id: one.work.generation for one in ready}
        live = jobs.renderable(self.engine.db, pairs) if pairs else set()
        return [one for one in ready if one.work.job_id in live]

    def _wanted(self, ready: Sequence[Ready]) -> bool:
        """Whether anybody may want any of these: the database may be out of reach."""
        try:
            return not ready or bool(self._still_wanted(ready))
        except errors.Unavailable:
            return True

    def _begin(self, lease: Lease, wanted: Sequence[Work]) -> None:
        names = sorted({work.job for work in wanted})
        self.engine.rendering(lease, names)
        details = {"bucket": lease.bucket, "count": len(wanted), "jobs": names}
        self.engine.events.begun(lease.id, details)
