"""For the tests of exports: a farm without processes, whose images are rendered many to an
object, and whose exports are planned and built by calling the parts that do it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import replace

from promptmill import keys
from promptmill.blobs import tar
from promptmill.jobs import ImageState
from promptmill.records import Result, Work
from promptmill.store import control, images
from tests.integration.api_farm import FINGERPRINT, ApiFarm, square
from worker.control.exporting import Exporting
from worker.control.sweep import Sweep
from worker.exports.builder import Builder

LOT = 500  # images in an object


def render(farm: ApiFarm, *, limit: int = 10**9, failing: bool = True) -> int:
    """Renders up to `limit` images of what is queued. failing: those that have "fail" in
    their prompt fail."""
    made = 0
    while made < limit:
        lease = farm.queue.lease("w1", min(LOT, limit - made), ttl=60.0)
        if lease is None:
            break
        works = images.fetch(farm.db, lease.spans, images.SegmentCache())
        images.commit(farm.db, _results(farm, works, lease.id, failing=failing), shard=0)
        farm.queue.ack(lease.id)
        made += len(works)
    control.finish_ready(farm.db)
    return made


def _results(farm: ApiFarm, works: Sequence[Work], lease: str, *, failing: bool) -> list[Result]:
    bad = [work for work in works if failing and "fail" in work.item.prompt]
    good = [work for work in works if work not in bad]
    found = [_failed(work) for work in bad]
    if not good:
        return found
    pictures = [square(work.item) for work in good]
    samples = [
        tar.Sample(work.item.index, data, "png", text=work.item.prompt, info={})
        for work, data in zip(good, pictures, strict=True)
    ]
    packed, places = tar.pack(samples)
    work = good[0]
    key = keys.part(work.output, work.job, generation=work.generation, lease=lease)
    farm.blobs.create(key, packed, content_type=tar.CONTENT_TYPE, metadata={})
    for work, data, (offset, length) in zip(good, pictures, places, strict=True):
        done = replace(
            _failed(work),
            state=ImageState.DONE,
            error_code=None,
            error_text=None,
            key=key,
            offset=offset,
            length=length,
            sha256=hashlib.sha256(data).digest(),
            bytes=len(data),
        )
        found.append(done)
    return found


def _failed(work: Work) -> Result:
    return Result.of(
        work,
        ImageState.FAILED,
        worker="w1",
        fingerprint=FINGERPRINT,
        render_ms=1.5,
        error_code="render_failed",
        error_text="no such picture",
    )


def exporting(farm: ApiFarm) -> Exporting:
    return Exporting(farm.db, stop=threading.Event())


def builder(farm: ApiFarm, owner: str = "b1", *, lease_seconds: float = 30.0) -> Builder:
    return Builder(farm.db, farm.blobs, owner=owner, lease_seconds=lease_seconds)


def sweep(farm: ApiFarm) -> Sweep:
    return Sweep(farm.db, farm.blobs, farm.settings, stop=threading.Event())


def work_off(farm: ApiFarm) -> int:
    """Plans and builds until there is nothing to do; the shards and cards built."""
    planner, made = exporting(farm), 0
    while True:
        planner.step()
        built = 0
        while builder(farm).step():
            built += 1
        made += built
        if not built:
            return made
