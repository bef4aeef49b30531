"""A farm without processes for the tests of control: a real database, a real queue and a
worker that is played call by call."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from promptmill import keys, segments
from promptmill.jobs import SEGMENT, ImageState, Item, Priority
from promptmill.leases import Lease
from promptmill.models import Caps, Model
from promptmill.records import Job, LaneSpec, NewJob, Output, Result, Segment, Upload, Work
from promptmill.redis_queue import RedisQueue
from promptmill.settings import Settings
from promptmill.store import images, jobs, models, submissions, tenants
from promptmill.store.database import Database
from worker.control.queues import Queues

CAPS = Caps(sizes=((64, 64),), batch_shapes=(1, 2, 4, 8, 16))
LEASE_SECONDS = 1.0


@dataclass
class Clock:
    """A monotonic clock that the test moves."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """`url` and `redis` are those of the servers; `model` is this test's own."""

    settings: Settings
    db: Database
    queue: RedisQueue
    queues: Queues
    model: str
    cache: images.SegmentCache = field(default_factory=images.SegmentCache)
    stop: threading.Event = field(default_factory=threading.Event)

    def submit(
        self,
        count: int,
        *,
        lanes: int = 1,
        enqueue: bool = True,
        webhook: str | None = None,
        output: Output | None = None,
        expires_at: float | None = None,
    ) -> Job:
        """`count` images in each of `lanes` lanes; `enqueue=False`: as if the API died
        between its commit and `replace`."""
        head = NewJob(
            tenant_id=1,
            model=self.model,
            name="bench",
            priority=Priority.NORMAL,
            seed=7,
            defaults={},
            output=output or Output(),
            webhook=webhook,
            expires_at=expires_at,
        )
        upload = submissions.begin(self.db, head, idempotency_key=None)
        assert isinstance(upload, Upload)
        for lane in range(lanes):
            self._write_lane(upload, lane, count)
        job = submissions.finish(
            self.db,
            upload,
            [LaneSpec(n, f"bucket={n}", 0.01, count) for n in range(lanes)],
            total=count * lanes,
            request_hash="",
            max_queued=None,
        )
        if enqueue:
            self.enqueue(job)
        return job

    def _write_lane(self, upload: Upload, lane: int, count: int) -> None:
        parts = []
        for number, first in enumerate(range(0, count, SEGMENT)):
            size = min(SEGMENT, count - first)
            items = [
                Item(lane * count + first + i, i, 0, f"prompt {lane} {first + i}", 5, 64, 64)
                for i in range(size)
            ]
            parts.append(Segment(lane, number, first, size, segments.encode(items)))
        submissions.write(self.db, upload, parts, [])

    def enqueue(self, job: Job) -> None:
        for lane in jobs.queue_lanes(self.db, job):
            self.queue.replace(lane, images.gaps(self.db, lane.id))

    def job(self, job: Job) -> Job:
        return jobs.get(self.db, None, job.public_id)

    def lease(self, worker: str, want: int = 16, *, ttl: float = 60.0) -> Lease | None:
        return self.queue.lease(worker, want, ttl=ttl)

    def works(self, lease: Lease) -> list[Work]:
        return images.fetch(self.db, lease.spans, self.cache)

    def commit(self, works: Sequence[Work], *, shard: int = 0) -> None:
        images.commit(self.db, [done(work) for work in works], shard=shard)

    def work_off(self, worker: str, want: int = 16) -> int:
        """Leases, commits and acknowledges until there is nothing to do; the images."""
        made = 0
        while (lease := self.lease(worker, want)) is not None:
            works = self.works(lease)
            self.commit(works)
            self.queue.ack(lease.id)
            made += len(works)
        return made


def done(work: Work) -> Result:
    """A terminal row for `work`, as a worker would commit it."""
    data = work.item.prompt.encode()
    key = keys.image(work.output, work.job, generation=work.generation, index=work.item.index)
    return Result(
        job_id=work.job_id,
        lane=work.lane,
        position=work.position,
        index=work.item.index,
        generation=work.generation,
        state=ImageState.DONE,
        attempt=work.attempt,
        seed=work.item.seed,
        worker="w",
        fingerprint="f",
        render_ms=1.0,
        key=key,
        sha256=hashlib.sha256(data).digest(),
        bytes=len(data),
    )


def failed(work: Work) -> Result:
    return replace(
        done(work),
        state=ImageState.FAILED,
        key=None,
        sha256=None,
        bytes=0,
        error_code="poison",
        error_text="",
    )


def servers(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Database and Redis URL of a stack: `embedded` or `fleet`, by the fixture's parameter."""
    if request.param == "embedded":
        folder: Path = request.getfixturevalue("tmp_path")
        return f"sqlite:///{folder / 'promptmill.db'}", request.getfixturevalue("valkey_url")
    return request.getfixturevalue("new_postgres_db")(), request.getfixturevalue("redis7_url")


@contextmanager
def bench(database_url: str, redis_url: str, folder: Path) -> Iterator[Bench]:
    """A model of its own on the shared Redis server, so that tests do not meet."""
    settings = Settings(
        data_dir=folder,
        database_url=database_url,
        redis_url=redis_url,
        lease_seconds=LEASE_SECONDS,
        webhook_networks="any",
        webhook_secret="whsec_c2VjcmV0LWtleS1vZi10aGUtdGVzdHM=",
    )
    db = Database(database_url)
    db.migrate()
    tenants.ensure_default(db)
    model = f"bench-{secrets.token_hex(4)}"
    models.register(db, Model(model, CAPS, "f"))
    queues = Queues(db, lambda name: RedisQueue(redis_url, name))
    queue = queues.of(model)
    assert isinstance(queue, RedisQueue)
    queue.set_epoch(queue.begin_rebuild())
    try:
        yield Bench(settings, db, queue, queues, model)
    finally:
        queues.close()
        db.close()
