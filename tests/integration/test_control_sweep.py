"""The sweep deletes exactly the objects that nothing refers to, and what a deleted job
leaves behind."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from promptmill import errors, keys
from promptmill.blobs import BlobStore
from promptmill.blobs.fake import MemoryBlobs
from promptmill.blobs.folder import DirBlobs
from promptmill.blobs.s3 import S3Blobs
from promptmill.jobs import Priority
from promptmill.records import Counts, Job, NewJob, Output, Work
from promptmill.store import deletion, images, jobs, submissions
from tests.integration.control_bench import Bench, bench, done, failed, servers
from tests.servers import Bucket
from worker.control.finaliser import Finaliser
from worker.control.sweep import ABANDONED, Known, Sweep

pytestmark = pytest.mark.servers


@pytest.fixture(params=["embedded", "fleet"])
def farm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with bench(*servers(request), tmp_path) as made:
        yield made


@pytest.fixture
def blobs(farm: Bench, request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    """A folder beside SQLite, S3 beside Postgres."""
    if farm.db.dialect == "sqlite":
        return DirBlobs(tmp_path / "objects")
    bucket: Bucket = request.getfixturevalue("s3").fresh()
    return S3Blobs(bucket.bucket, prefix=bucket.prefix, endpoint_url=bucket.endpoint_url)


def put(blobs: BlobStore, key: str) -> str:
    blobs.create(key, key.encode(), content_type="image/png", metadata={})
    return key


def put_all(blobs: BlobStore, works: list[Work]) -> set[str]:
    return {
        put(
            blobs,
            keys.image(w.output, w.job, generation=w.generation, index=w.item.index),
        )
        for w in works
    }


def listed(blobs: BlobStore, job: Job) -> set[str]:
    return {stored.key for stored in blobs.list(keys.job_prefix(job.output, job.public_id))}


def sweeper(farm: Bench, blobs: BlobStore, *, hours: float = 1.0) -> Sweep:
    """As if so many hours had passed."""
    return Sweep(
        farm.db, blobs, farm.settings, stop=farm.stop, clock=lambda: time.time() + hours * 3600
    )


def settle(farm: Bench) -> None:
    """Lets the settling time after a job's end pass; the store reads its own clock."""
    time.sleep(2 * farm.settings.lease_seconds + 0.05)


def work_off_with_objects(farm: Bench, blobs: BlobStore, *, ruined: int = 0) -> set[str]:
    """Works the queue off; the first `ruined` images fail."""
    kept: set[str] = set()
    while (lease := farm.lease("w")) is not None:
        works = farm.works(lease)
        bad = {(w.lane, w.position) for w in works[:ruined]}
        good = [w for w in works if (w.lane, w.position) not in bad]
        kept |= put_all(blobs, good)
        images.commit(
            farm.db,
            [failed(w) if (w.lane, w.position) in bad else done(w) for w in works],
            shard=0,
        )
        farm.queue.ack(lease.id)
        ruined -= len(bad)
    return kept


def test_exactly_the_orphans_go(farm: Bench, blobs: BlobStore) -> None:
    job = farm.submit(20, lanes=2)
    kept = work_off_with_objects(farm, blobs, ruined=3)
    other = farm.submit(4)
    kept |= work_off_with_objects(farm, blobs)
    paused = farm.submit(2)
    jobs.pause(farm.db, 1, paused.public_id)
    unfinished = put(blobs, keys.image(paused.output, paused.public_id, generation=0, index=0))
    assert Finaliser(farm.db, farm.queues, farm.settings).step() == 2
    orphans = {
        put(blobs, keys.image(job.output, job.public_id, generation=0, index=index))
        for index in range(job.counts.total)
        if keys.image(job.output, job.public_id, generation=0, index=index) not in kept
    }
    orphans |= {
        put(blobs, keys.part(job.output, job.public_id, generation=0, lease="zombie")),
        put(blobs, keys.image(job.output, job.public_id, generation=0, index=99_999)),
        put(blobs, keys.generation_prefix(job.output, job.public_id, 0) + "7.png"),
    }
    assert len(orphans) == 6
    sweep = sweeper(farm, blobs)
    assert sweep.generations() == 0, "the slots that ended last may still be putting"
    settle(farm)
    assert sweep.generations() == 6
    assert listed(blobs, job) | listed(blobs, other) == kept
    assert listed(blobs, paused) == {unfinished}
    put(blobs, next(iter(orphans)))
    assert sweep.generations() == 0, "a generation is swept once"


def test_tar_parts_stay_while_a_row_lies_in_them(farm: Bench, blobs: BlobStore) -> None:
    job = farm.submit(8, output=Output(packing="tar"))
    lease = farm.lease("w")
    assert lease is not None
    part = put(blobs, keys.part(job.output, job.public_id, generation=0, lease=lease.id))
    dead = put(blobs, keys.part(job.output, job.public_id, generation=0, lease="dead"))
    rows = [replace(done(w), key=part, offset=512, length=10) for w in farm.works(lease)]
    images.commit(farm.db, rows[:4], shard=0)
    images.commit(farm.db, [failed(w) for w in farm.works(lease)], shard=0)
    farm.queue.ack(lease.id)
    Finaliser(farm.db, farm.queues, farm.settings).step()
    settle(farm)
    assert sweeper(farm, blobs).generations() == 1
    assert listed(blobs, job) == {part}
    assert dead not in listed(blobs, job)


def test_what_is_young_is_looked_at_again(farm: Bench, blobs: BlobStore) -> None:
    """A repaired copy is put before its row points at it."""
    job = farm.submit(2)
    kept = work_off_with_objects(farm, blobs)
    Finaliser(farm.db, farm.queues, farm.settings).step()
    settle(farm)
    copy = put(blobs, keys.repaired(job.output, job.public_id, generation=0, index=1, nonce="n"))
    now = sweeper(farm, blobs, hours=0)
    assert now.generations() == 0
    images.relocate(farm.db, farm.job(job), 1, key=copy, offset=None, length=None)
    assert sweeper(farm, blobs).generations() == 1
    old = keys.image(job.output, job.public_id, generation=0, index=1)
    assert listed(blobs, job) == kept - {old} | {copy}


def test_an_old_generation_is_swept_while_the_next_one_runs(farm: Bench, blobs: BlobStore) -> None:
    job = farm.submit(6)
    kept = work_off_with_objects(farm, blobs, ruined=2)
    Finaliser(farm.db, farm.queues, farm.settings).step()
    again, _ = jobs.retry(farm.db, 1, job.public_id, codes=None)
    farm.enqueue(again)
    orphan = put(blobs, keys.image(job.output, job.public_id, generation=0, index=0))
    lease = farm.lease("w")
    assert lease is not None
    fresh = put_all(blobs, farm.works(lease))
    passed = 0.0
    sweep = Sweep(
        farm.db,
        blobs,
        farm.settings,
        stop=farm.stop,
        clock=lambda: time.time() + 3600 + passed,
    )
    assert sweep.generations() == 0
    passed = 60.0
    assert sweep.generations() == 1
    assert listed(blobs, job) == kept | fresh
    assert orphan not in kept


def test_a_deleted_jobs_objects_go_at_once_and_a_day_later(
    farm: Bench, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = farm.submit(5, output=Output(prefix="mine/"))
    work_off_with_objects(farm, blobs)
    Finaliser(farm.db, farm.queues, farm.settings).step()
    deletion.delete(farm.db, 1, job.public_id)
    sweep = sweeper(farm, blobs)
    assert sweep.tombstones() == 1
    assert listed(blobs, job) == set()
    assert sweep.swept == 5
    assert sweep.tombstones() == 0
    put(blobs, keys.image(job.output, job.public_id, generation=0, index=0))  # by a sleeper
    now = farm.db.now()
    monkeypatch.setattr(type(farm.db), "now", lambda self: now + 86_500)
    assert sweep.tombstones() == 1
    assert listed(blobs, job) == set()
    assert sweep.tombstones() == 0


def test_an_outage_of_the_store_leaves_everything_to_the_next_round(farm: Bench) -> None:
    blobs = MemoryBlobs()
    job = farm.submit(3)
    kept = work_off_with_objects(farm, blobs)
    Finaliser(farm.db, farm.queues, farm.settings).step()
    put(blobs, keys.part(job.output, job.public_id, generation=0, lease="dead"))
    settle(farm)
    sweep = sweeper(farm, blobs)
    blobs.down = True
    with pytest.raises(errors.StorageDown):
        sweep.generations()
    blobs.down = False
    assert sweep.generations() == 1
    assert listed(blobs, job) == kept


def test_retention_deletes_what_is_old(farm: Bench, blobs: BlobStore) -> None:
    job = farm.submit(2)
    farm.work_off("w")
    Finaliser(farm.db, farm.queues, farm.settings).step()
    assert sweeper(farm, blobs).retention() == 0, "off unless a setting says so"
    kept = replace(farm.settings, retention_days=1.0)
    assert Sweep(farm.db, blobs, kept, stop=farm.stop).retention() == 0
    time.sleep(0.1)
    gone = replace(farm.settings, retention_days=0.05 / 86_400)
    assert Sweep(farm.db, blobs, gone, stop=farm.stop).retention() == 1
    with pytest.raises(errors.NotFound):
        farm.job(job)


def test_abandoned_uploads_are_given_up(
    farm: Bench, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = NewJob(1, farm.model, "", Priority.NORMAL, 1, {}, Output())
    submissions.begin(farm.db, head, idempotency_key="k")
    sweep = sweeper(farm, blobs)
    assert sweep.uploads() == 0
    now = farm.db.now()
    monkeypatch.setattr(type(farm.db), "now", lambda self: now + ABANDONED + 1)
    assert sweep.uploads() == 1
    assert sweep.uploads() == 0


def test_ten_million_known_keys_fit_a_megabyte_or_two(farm: Bench) -> None:
    job = replace(farm.submit(1), counts=Counts(10_000_000, 0, 0))
    known = Known(job, 3)

    def image(index: int, generation: int = 3) -> str:
        return keys.image(job.output, job.public_id, generation=generation, index=index)

    part = keys.part(job.output, job.public_id, generation=3, lease="l")
    tracemalloc.start()
    for index in range(0, 10_000_000, 1000):
        known.add(image(index))
    known.add(part)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 100_000, "the bits are there from the start, the keys are not kept"
    assert part in known
    assert image(5000) in known
    assert image(5001) not in known
    assert image(5000, generation=2) not in known
    assert keys.part(job.output, job.public_id, generation=3, lease="m") not in known
