"""The finaliser: jobs end when their counters say so, when nobody holds them any more, or
when their window closes, and leave nothing in Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from promptmill import errors
from promptmill.jobs import JobState
from promptmill.store import deletion, images, jobs
from tests.integration.control_bench import Bench, Clock, bench, failed
from tests.servers import RedisServer, wait_until
from worker.control.ears import Ears
from worker.control.finaliser import Finaliser

pytestmark = pytest.mark.servers


@pytest.fixture
def farm(database_url: str, valkey_url: str, tmp_path: Path) -> Iterator[Bench]:
    with bench(database_url, valkey_url, tmp_path) as made:
        yield made


def test_a_finished_job_is_completed_and_leaves_redis(farm: Bench) -> None:
    job, other = farm.submit(20, lanes=2), farm.submit(5)
    finaliser = Finaliser(farm.db, farm.queues, farm.settings)
    heard = farm.queue.listen(farm.stop)
    assert finaliser.step() == 0
    assert farm.work_off("w") == 45
    assert finaliser.step() == 2
    assert finaliser.step() == 0
    assert {farm.job(job).state, farm.job(other).state} == {JobState.COMPLETED}
    assert farm.queue.lane_ids() == []
    assert {next(heard), next(heard)} == {job.public_id, other.public_id}
    farm.stop.set()


def test_a_job_that_was_heard_of_ends_without_a_round(farm: Bench) -> None:
    job, other, unheard = farm.submit(20), farm.submit(5), farm.submit(5)
    finaliser = Finaliser(farm.db, farm.queues, farm.settings)
    ears = Ears(farm.queues, finaliser.look, stop=farm.stop)
    ears.step()
    assert farm.work_off("w", 5) == 30

    def ended() -> bool:  # told again until its listener has subscribed
        farm.queue.publish(job.public_id)
        ears.tell()
        return farm.job(job).state is JobState.COMPLETED

    wait_until(ended, seconds=10, what="the job ends")
    finaliser.look([other.public_id])
    assert farm.job(other).state is JobState.COMPLETED
    assert farm.job(unheard).state is JobState.QUEUED
    farm.stop.set()
    ears.join(2)


def test_a_job_with_failed_images_completes_and_can_be_retried(farm: Bench) -> None:
    job = farm.submit(4)
    finaliser = Finaliser(farm.db, farm.queues, farm.settings)
    lease = farm.lease("w")
    assert lease is not None
    images.commit(farm.db, [failed(work) for work in farm.works(lease)], shard=1)
    farm.queue.ack(lease.id)
    assert finaliser.step() == 1
    again, count = jobs.retry(farm.db, 1, job.public_id, codes=None)
    assert count == 4
    farm.enqueue(again)
    assert finaliser.step() == 0
    assert farm.work_off("w") == 4
    assert finaliser.step() == 1
    counts = farm.job(job).counts
    assert (counts.done, counts.failed) == (4, 0)


def test_a_cancelled_job_waits_for_its_leases(farm: Bench) -> None:
    job = farm.submit(20)
    lease = farm.lease("w", 8)
    assert lease is not None
    works = farm.works(lease)
    jobs.cancel(farm.db, 1, job.public_id)  # and the API dies before it tells Redis
    finaliser = Finaliser(farm.db, farm.queues, farm.settings, clock=Clock())
    assert finaliser.step() == 0
    assert farm.queue.lane_ids() == [], "nothing more of it is leased"
    assert farm.lease("w2") is None
    assert farm.job(job).state is JobState.CANCELLING
    farm.commit(works)
    farm.queue.ack(lease.id)
    assert finaliser.step() == 1
    assert farm.job(job).state is JobState.CANCELLED
    assert farm.job(job).counts.done == 0, "the fence held"


def test_a_cancelled_job_waits_no_longer_than_a_lease_period(farm: Bench) -> None:
    job = farm.submit(20)
    assert farm.lease("w", 8) is not None
    jobs.cancel(farm.db, 1, job.public_id)
    clock = Clock()
    finaliser = Finaliser(farm.db, farm.queues, farm.settings, clock=clock)
    assert finaliser.step() == 0
    clock.now += farm.settings.lease_seconds * 0.9
    assert finaliser.step() == 0
    clock.now += farm.settings.lease_seconds * 0.2
    assert finaliser.step() == 1
    assert farm.job(job).state is JobState.CANCELLED


def test_jobs_are_cancelled_while_redis_is_away(tmp_path: Path) -> None:
    with (
        RedisServer() as server,
        bench(f"sqlite:///{tmp_path / 'a.db'}", server.url, tmp_path) as farm,
    ):
        job, done = farm.submit(20), farm.submit(1)
        assert farm.work_off("w") == 21
        other = farm.submit(3)
        jobs.cancel(farm.db, 1, other.public_id)
        server.kill()
        clock = Clock()
        finaliser = Finaliser(farm.db, farm.queues, farm.settings, clock=clock)
        assert finaliser.step() == 2, "those that are complete need no Redis"
        clock.now += farm.settings.lease_seconds
        assert finaliser.step() == 1
        assert farm.job(job).state is farm.job(done).state is JobState.COMPLETED
        assert farm.job(other).state is JobState.CANCELLED
        server.restart()


def test_an_expired_job_keeps_what_is_done(farm: Bench) -> None:
    job = farm.submit(20, expires_at=time.time() + 0.5)
    finaliser = Finaliser(farm.db, farm.queues, farm.settings)
    lease = farm.lease("w", 8)
    late = farm.lease("w", 8)
    assert lease is not None
    assert late is not None
    works = farm.works(late)
    farm.commit(farm.works(lease))
    farm.queue.ack(lease.id)
    assert finaliser.step() == 0
    time.sleep(0.6)
    assert finaliser.step() == 1
    assert farm.job(job).state is JobState.EXPIRED
    assert farm.queue.lane_ids() == []
    farm.commit(works)
    assert farm.job(job).counts.done == 8


def test_a_live_job_that_is_deleted_goes_once_it_is_cancelled(farm: Bench) -> None:
    job = farm.submit(20)
    lanes = jobs.lanes(farm.db, job.id)
    deletion.delete(farm.db, 1, job.public_id)
    assert Finaliser(farm.db, farm.queues, farm.settings).step() == 1
    with pytest.raises(errors.NotFound):
        farm.job(job)
    assert not {lane.id for lane in lanes} & set(farm.queue.lane_ids())
    assert farm.lease("w") is None
