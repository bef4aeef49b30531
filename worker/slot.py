"""The story of promptmill on one page: a slot leases a micro-batch and carries it through
lease → fetch → render → encode → put → commit → acknowledge. A few identical slots run
beside each other; while one renders, the others fetch the next and finish the last."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from promptmill import errors, failpoints, keys
from promptmill.blobs import New, Stored, tar
from promptmill.jobs import COUNTER_SHARDS, ImageState
from promptmill.records import Lease, Result, Work
from promptmill.store import images, jobs
from worker import encode
from worker.render import Fault, Outcome, Picture

if TYPE_CHECKING:
    from worker.engine import Engine

log = logging.getLogger(__name__)

LARGE = 256 * 256  # pixels above which pictures are encoded beside each other
ATTEMPTS = 5  # after so many unexplained errors of ours, a lone image fails


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture as a file, on its way to the store."""

    work: Work
    data: bytes
    picture: Picture


@dataclass(frozen=True, slots=True)
class Bundle:
    """An object to create and the pictures in it. places: (offset, length) of each in a
    tar part; None when the object is the picture."""

    object: New
    members: Sequence[Encoded]
    places: Sequence[tuple[int, int]] | None


@dataclass(frozen=True, slots=True)
class Kept:
    """A picture whose object is in the store, ready to be committed."""

    work: Work
    result: Result


@dataclass(frozen=True, slots=True)
class Refused:
    """An item that has no picture, and why."""

    work: Work
    fault: Fault


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
        seen = 0
        while not self.engine.stopping.is_set():
            self._move()
            try:
                lease = self.engine.lease(self)
            except errors.Unavailable as outage:
                self.engine.outlast(outage)
                continue
            if lease is None:
                seen = self.engine.rest(seen)
            else:
                self.carry(lease)

    def carry(self, lease: Lease) -> None:
        """One micro-batch from lease to acknowledgement. Whatever goes wrong, its images
        are either committed or back in the queue."""
        outage: errors.Unavailable | None = None
        begun = time.monotonic()
        try:
            failpoints.reach("slot.leased")
            works = self.fetch(lease)
            failpoints.reach("slot.fetched")
            outcomes = self.render(lease, works)
            failpoints.reach("slot.rendered")
            encoded, refused = self.encode(outcomes)
            kept = self.put(lease, encoded)
            failpoints.reach("slot.put")
            self.commit(lease, kept, refused)
            failpoints.reach("slot.committed")
            self.acknowledge(lease)
            self.engine.events.ended(
                lease.id, seconds=time.monotonic() - begun, result=f"{len(kept)} images"
            )
        except GiveBack:
            self.give_back(lease, charge=False, reason="draining")
        except errors.Unavailable as error:
            outage = error
            self.give_back(lease, charge=False, reason=str(error))
        except Exception as error:
            log.exception("lease %s failed", lease.id)
            self.isolate(lease, error)
        finally:
            self.engine.release(lease)
        if outage is not None:
            self.engine.outlast(outage)

    # the steps

    def fetch(self, lease: Lease) -> list[Work]:
        """The items of the lease that still need a picture."""
        works = images.fetch(self.engine.db, lease.spans, self.engine.segments)
        self._move()
        return works

    def render(self, lease: Lease, works: Sequence[Work]) -> list[tuple[Work, Outcome]]:
        """One forward pass, or as many as memory and faults ask for, under the lock."""
        self.moved = None
        with self.engine.turn.take(first=self.interactive):
            self._move()
            if self.engine.draining.is_set():
                raise GiveBack
            wanted = self._still_wanted(works)
            if not wanted:
                return []
            self._begin(lease, wanted)
            begun = time.monotonic()
            outcomes = self.engine.renderer.render(
                lease.bucket, [w.item for w in wanted], progress=self._move
            )
            self.engine.measured.add(lease.bucket, len(wanted), time.monotonic() - begun)
        self._move()
        return list(zip(wanted, outcomes, strict=True))

    def encode(
        self, outcomes: Sequence[tuple[Work, Outcome]]
    ) -> tuple[list[Encoded], list[Refused]]:
        """Pictures become files; faults stay faults."""
        pictures: list[tuple[Work, Picture]] = []
        refused: list[Refused] = []
        for work, outcome in outcomes:
            if isinstance(outcome, Fault):
                refused.append(Refused(work, outcome))
            elif work.pinned and work.pinned != outcome.fingerprint:
                refused.append(Refused(work, _unpinned(work.pinned, outcome.fingerprint)))
            else:
                pictures.append((work, outcome))
        large = bool(pictures) and pictures[0][1].pixels[..., 0].size > LARGE
        run = self.engine.pool.map if large else map
        encoded = list(run(self._encode, pictures))
        self._move()
        return encoded, refused

    def put(self, lease: Lease, encoded: Sequence[Encoded]) -> list[Kept]:
        """Creates the objects: one an image, or one tar part a job."""
        bundles = [
            *(self._single(one) for one in encoded if one.work.output.packing == "image"),
            *(self._part(lease, members) for members in _by_job(encoded, packing="tar")),
        ]
        stored = self.engine.blobs.create_many([bundle.object for bundle in bundles])
        self._move()
        return [
            kept
            for bundle, there in zip(bundles, stored, strict=True)
            for kept in self._keep(bundle, there)
        ]

    def commit(self, lease: Lease, kept: Sequence[Kept], refused: Sequence[Refused]) -> None:
        """One transaction for the micro-batch. Only the owner of a lease may fail an
        image: another worker may be rendering it well."""
        results = [one.result for one in kept]
        if refused and self.engine.owns(lease):
            results += [self._failed(one) for one in refused]
        if not results:
            return
        images.commit(self.engine.db, results, shard=self._shard)
        self.engine.measured.failed += len(refused)
        works = [one.work for one in kept] + [one.work for one in refused]
        self.engine.publish({work.job for work in works})
        self._move()

    def acknowledge(self, lease: Lease) -> None:
        """The lease is over. A lost reply is harmless: it expires, and whoever gets its
        images finds them done."""
        try:
            self.engine.queue.ack(lease.id)
        except errors.RedisDown as outage:
            log.info("lease %s expires by itself: %s", lease.id, outage)

    # when a step fails

    def give_back(self, lease: Lease, *, charge: bool, reason: str) -> None:
        self.engine.events.given_back(lease.id, reason)
        try:
            self.engine.queue.nack(lease, lease.spans, charge=charge)
        except errors.RedisDown as outage:
            log.info("lease %s expires by itself: %s", lease.id, outage)

    def isolate(self, lease: Lease, error: Exception) -> None:
        """An error of ours, not of the generator: the images come back in ever smaller
        leases, and one that fails alone again and again is failed with the reason."""
        span = lease.spans[0]
        if lease.count == 1 and span.attempt >= ATTEMPTS and self._fail_alone(lease, error):
            return
        self.give_back(lease, charge=True, reason=type(error).__name__)

    def _fail_alone(self, lease: Lease, error: Exception) -> bool:
        fault = Fault("internal_error", f"{type(error).__name__}: {error}")
        try:
            works = self.fetch(lease)
            self.commit(lease, [], [Refused(w, fault) for w in works])
            self.acknowledge(lease)
        except Exception:
            log.exception("lease %s could not be failed", lease.id)
            return False
        return True

    # parts of the steps

    def _move(self) -> None:
        self.moved = time.monotonic()

    def _still_wanted(self, works: Sequence[Work]) -> list[Work]:
        """Leaves out the images of jobs that were cancelled, paused or restarted since."""
        pairs = {w.job_id: w.generation for w in works}
        live = jobs.renderable(self.engine.db, pairs) if pairs else set()
        return [w for w in works if w.job_id in live]

    def _begin(self, lease: Lease, wanted: Sequence[Work]) -> None:
        self.engine.rendering(lease)
        self.engine.events.begun(
            lease.id,
            {
                "bucket": lease.bucket,
                "count": len(wanted),
                "jobs": sorted({w.job for w in wanted}),
            },
        )

    def _encode(self, pair: tuple[Work, Picture]) -> Encoded:
        work, picture = pair
        data = encode.encode(
            picture.pixels,
            work.item,
            model=work.model,
            fingerprint=picture.fingerprint,
            format=work.output.format,
        )
        return Encoded(work, data, picture)

    def _metadata(self, one: Encoded) -> dict[str, str]:
        item = one.work.item
        return {
            "seed": str(item.seed),
            "fingerprint": one.picture.fingerprint,
            "index": str(item.index),
            "attempt": str(one.work.attempt),
            "worker": self.engine.worker,
        }

    def _single(self, one: Encoded) -> Bundle:
        work = one.work
        key = keys.image(work.output, work.job, generation=work.generation, index=work.item.index)
        kind = encode.CONTENT_TYPES[work.output.format]
        return Bundle(New(key, one.data, kind, self._metadata(one)), [one], None)

    def _part(self, lease: Lease, members: Sequence[Encoded]) -> Bundle:
        """One tar part holds all that this lease made for one job."""
        first = members[0].work
        data, places = tar.pack([_sample(one) for one in members])
        key = keys.part(first.output, first.job, generation=first.generation, lease=lease.id)
        return Bundle(New(key, data, tar.CONTENT_TYPE, {}), members, places)

    def _keep(self, bundle: Bundle, there: Stored) -> list[Kept]:
        """The results to commit. An object that was there before is adopted with its own
        facts: its bytes are what the row must name."""
        if bundle.places is None:
            [one] = bundle.members
            fingerprint = there.metadata.get("fingerprint", one.picture.fingerprint)
            sha256 = bytes.fromhex(there.sha256)
            facts = {"sha256": sha256, "bytes": there.size, "fingerprint": fingerprint}
            return [Kept(one.work, self._done(one, key=there.key, **facts))]
        return [
            Kept(
                one.work,
                self._done(
                    one,
                    key=there.key,
                    offset=offset,
                    length=length,
                    sha256=hashlib.sha256(one.data).digest(),
                    bytes=len(one.data),
                ),
            )
            for one, (offset, length) in zip(bundle.members, bundle.places, strict=True)
        ]

    def _done(self, one: Encoded, **stored: Any) -> Result:
        return replace(
            self._result(one.work, ImageState.DONE),
            **{
                "fingerprint": one.picture.fingerprint,
                "render_ms": one.picture.milliseconds,
                **stored,
            },
        )

    def _failed(self, one: Refused) -> Result:
        return replace(
            self._result(one.work, ImageState.FAILED),
            error_code=one.fault.code,
            error_text=one.fault.text[:1000],
        )

    def _result(self, work: Work, state: ImageState) -> Result:
        return Result(
            job_id=work.job_id,
            lane=work.lane,
            position=work.position,
            index=work.item.index,
            generation=work.generation,
            state=state,
            attempt=work.attempt,
            seed=work.item.seed,
            worker=self.engine.worker,
            fingerprint=self.engine.fingerprint,
            render_ms=0.0,
        )


def _by_job(encoded: Sequence[Encoded], *, packing: str) -> list[list[Encoded]]:
    jobs: dict[int, list[Encoded]] = defaultdict(list)
    for one in encoded:
        if one.work.output.packing == packing:
            jobs[one.work.job_id].append(one)
    return list(jobs.values())


def _sample(one: Encoded) -> tar.Sample:
    item = one.work.item
    info = tar.describe(
        item,
        model=one.work.model,
        fingerprint=one.picture.fingerprint,
        sha256=hashlib.sha256(one.data).hexdigest(),
        score=None,
    )
    extension = one.work.output.extension()
    return tar.Sample(item.index, one.data, extension, text=item.prompt, info=info)


def _unpinned(pinned: str, got: str) -> Fault:
    text = f"the job is pinned to fingerprint {pinned}, this worker renders {got}"
    return Fault("fingerprint_unavailable", text)
