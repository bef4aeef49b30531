"""Audit and rebuild: what a crash between database and Redis loses comes back, once, and
nothing is repaired that was not broken."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from promptmill import errors
from promptmill.store import conservation, control, jobs
from tests.integration.control_bench import Bench, Clock, bench, servers
from worker.control.audit import Audit
from worker.control.finaliser import Finaliser
from worker.control.rebuild import Rebuild

pytestmark = pytest.mark.servers


@pytest.fixture(params=["embedded", "fleet"])
def farm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with bench(*servers(request), tmp_path) as made:
        yield made


def flush(farm: Bench) -> None:
    client = redis.Redis.from_url(farm.settings.redis)
    client.flushall()
    client.close()


def audited(farm: Bench) -> tuple[Audit, Clock]:
    clock = Clock()
    return Audit(farm.db, farm.queues, clock=clock), clock


def rounds(audit: Audit, clock: Clock, count: int = 3) -> int:
    """Rounds of the audit, each late enough to confirm what the last one suspected."""
    repaired = 0
    for _ in range(count):
        repaired += audit.step()
        clock.now += 2.5
    return repaired


def test_a_lost_enqueue_is_repaired_once_per_lane(farm: Bench) -> None:
    whole = farm.submit(20)
    lost = farm.submit(20, lanes=2, enqueue=False)
    audit, clock = audited(farm)
    assert audit.step() == 0, "once short may be an API that is about to enqueue"
    clock.now += 0.5
    assert audit.step() == 0, "still within what is forgiven"
    clock.now += 2.0
    assert audit.step() == 2
    assert rounds(audit, clock) == 0
    assert audit.repairs == 2
    assert farm.work_off("w") == 60
    assert farm.job(whole).counts.done == 20
    assert farm.job(lost).counts.done == 40


def test_an_enqueue_that_comes_late_is_no_repair(farm: Bench) -> None:
    job = farm.submit(20, enqueue=False)
    audit, clock = audited(farm)
    assert audit.step() == 0
    farm.enqueue(job)
    clock.now += 2.5
    assert rounds(audit, clock) == 0
    assert audit.repairs == 0


def test_a_lane_lost_by_half_gets_what_it_lacks_and_no_more(farm: Bench) -> None:
    job = farm.submit(40)
    lease = farm.lease("w", 8)
    assert lease is not None
    farm.commit(farm.works(lease))
    farm.queue.ack(lease.id)
    held = farm.lease("other", 8)
    assert held is not None
    lane = jobs.lanes(farm.db, job.id)[0].id
    client = redis.Redis.from_url(farm.settings.redis)
    client.delete(f"{{{farm.model}}}:q:{lane}")
    client.close()
    audit, clock = audited(farm)
    assert rounds(audit, clock) == 1
    counts = farm.queue.snapshot([lane])[lane]
    assert (counts.queued, counts.leased, counts.retry) == (24, 8, 0)


def test_flushall_is_rebuilt_and_nothing_is_lost_or_repaired(farm: Bench) -> None:
    done = farm.submit(20)
    assert farm.work_off("w") == 20
    waiting = farm.submit(50, lanes=2)
    begun = farm.submit(30)
    lease = farm.lease("w", 8)
    assert lease is not None
    works = farm.works(lease)
    flush(farm)
    audit, clock = audited(farm)
    rebuild = Rebuild(farm.db, farm.queues, stop=farm.stop, settle=0.01)
    assert rounds(audit, clock) == 0, "a cold queue is the rebuild's business"
    farm.commit(works)  # a worker that never noticed
    assert rebuild.step() == 1
    assert rebuild.step() == 0
    assert not farm.queue.ack(lease.id)
    assert rounds(audit, clock) == 0
    assert farm.work_off("w") == 130 - len(works)
    assert rounds(audit, clock) == 0
    for job, total in ((done, 20), (waiting, 100), (begun, 30)):
        assert farm.job(job).counts.done == total


def test_the_first_start_opens_an_empty_queue_at_once(farm: Bench) -> None:
    flush(farm)
    rebuild = Rebuild(farm.db, farm.queues, stop=farm.stop, settle=60.0)
    assert rebuild.step() == 1, "nothing is open: nobody to wait for"
    assert farm.queue.epoch() is not None


def test_paused_jobs_stay_out_and_stray_lanes_are_dropped(farm: Bench) -> None:
    job = farm.submit(20)
    other = farm.submit(20)
    jobs.pause(farm.db, 1, job.public_id)  # and the API dies before it tells Redis
    audit, clock = audited(farm)
    assert audit.strays() == 1
    assert audit.strays() == 0
    lane = jobs.lanes(farm.db, job.id)[0].id
    assert not farm.queue.snapshot([lane])[lane].registered
    assert rounds(audit, clock) == 0
    assert farm.work_off("w") == 20
    assert farm.job(other).counts.done == 20
    resumed = jobs.resume(farm.db, 1, job.public_id)
    farm.enqueue(resumed)
    assert audit.strays() == 0
    assert farm.work_off("w") == 20


def test_what_moves_between_the_two_reads_is_counted_twice_never_not_at_all(
    farm: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each look, at Redis or at the database, a worker finishes four images."""
    job = farm.submit(200)

    def then_work(look: Callable[..., Any]) -> Callable[..., Any]:
        def looked(*args: Any) -> Any:
            found = look(*args)
            lease = farm.lease("w", 4)
            if lease is not None:
                farm.commit(farm.works(lease))
                farm.queue.ack(lease.id)
            return found

        return looked

    monkeypatch.setattr(farm.queue, "snapshot", then_work(farm.queue.snapshot))
    monkeypatch.setattr(conservation, "progress", then_work(conservation.progress))
    monkeypatch.setattr(control, "lane_terminals", then_work(control.lane_terminals))
    audit, clock = audited(farm)
    assert rounds(audit, clock, 6) == 0
    assert 0 < farm.job(job).counts.done < 200


@pytest.mark.timeout(60)
def test_no_false_repair_while_everything_moves(farm: Bench) -> None:
    """Ten seconds of leases, commits, acknowledgements, give-backs, reaping, pauses and new
    jobs, with the audit confirming at once: whatever it repaired was not broken."""
    stop = threading.Event()
    failures: list[BaseException] = []
    submitted: list[int] = []

    def worker(number: int) -> None:
        chance = random.Random(number)
        while not stop.is_set():
            lease = farm.lease(f"w{number}", chance.choice((1, 4, 16)))
            if lease is None:
                stop.wait(0.01)
                continue
            if chance.random() < 0.2:
                farm.queue.nack(lease, lease.spans, charge=chance.random() < 0.5)
                continue
            farm.commit(farm.works(lease), shard=number)
            farm.queue.ack(lease.id)

    def pause_and_resume(job: str) -> None:
        paused = jobs.pause(farm.db, 1, job)
        lanes = [lane.id for lane in jobs.lanes(farm.db, paused.id)]
        farm.queue.drop(lanes, version=paused.version)
        stop.wait(0.05)
        farm.enqueue(jobs.resume(farm.db, 1, job))

    def submitter() -> None:
        chance = random.Random(99)
        while not stop.is_set():
            job = farm.submit(chance.randint(1, 60), lanes=chance.randint(1, 3))
            submitted.append(job.counts.total)
            with contextlib.suppress(errors.IllegalTransition):  # it was quicker than we
                if chance.random() < 0.3:
                    pause_and_resume(job.public_id)
            stop.wait(0.05)

    def guarded(play: object, *args: int) -> None:
        try:
            play(*args)  # type: ignore[operator]
        except BaseException as error:
            failures.append(error)
            stop.set()

    threads = [threading.Thread(target=guarded, args=(worker, n)) for n in range(3)]
    threads.append(threading.Thread(target=guarded, args=(submitter,)))
    audit = Audit(farm.db, farm.queues, confirm=0.3)
    finaliser = Finaliser(farm.db, farm.queues, farm.settings)
    for thread in threads:
        thread.start()
    timer = threading.Timer(10.0, stop.set)
    timer.start()
    while not stop.wait(0.05):
        audit.step()
        audit.strays()
        finaliser.step()
    timer.cancel()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert not failures, failures
    assert audit.repairs == 0
    farm.work_off("last")
    finaliser.step()
    assert sum(submitted) > 0


def test_a_queue_emptied_again_during_its_rebuild_is_rebuilt_again(
    farm: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, other = farm.submit(20), farm.submit(10)
    lease = farm.lease("w", 8)
    assert lease is not None
    farm.commit(farm.works(lease))
    flush(farm)
    rebuild = Rebuild(farm.db, farm.queues, stop=farm.stop, settle=0.0)
    lane_ids = farm.queue.lane_ids

    def emptied() -> list[int]:
        flush(farm)
        monkeypatch.setattr(farm.queue, "lane_ids", lane_ids)
        return lane_ids()

    monkeypatch.setattr(farm.queue, "lane_ids", emptied)
    assert rebuild.step() == 0
    assert farm.queue.epoch() is None
    assert rebuild.step() == 1
    assert farm.work_off("w") == 30 - lease.count
    assert farm.job(job).counts.done == 20
    assert farm.job(other).counts.done == 10


def test_a_rebuild_that_lost_its_newest_starts_over(
    farm: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis crashed and came back with what it had written to its file until then."""
    farm.submit(20)
    flush(farm)
    rebuild = Rebuild(farm.db, farm.queues, stop=farm.stop, settle=0.0)
    lane_ids = farm.queue.lane_ids

    def crashed() -> list[int]:
        monkeypatch.undo()
        with redis.Redis.from_url(farm.settings.redis) as client:
            client.delete(*(key for key in client.scan_iter() if not key.endswith(b":rebuilding")))
        return lane_ids()

    monkeypatch.setattr(farm.queue, "lane_ids", crashed)
    assert rebuild.step() == 0
    assert rebuild.step() == 1
    assert farm.work_off("w") == 20


def test_a_job_that_came_and_went_during_a_rebuild_starts_it_over(
    farm: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was queued after its page was read, and Redis was emptied after that."""
    flush(farm)
    rebuild = Rebuild(farm.db, farm.queues, stop=farm.stop, settle=0.0)
    lane_ids = farm.queue.lane_ids

    def emptied() -> list[int]:
        monkeypatch.undo()
        farm.submit(10)
        flush(farm)
        return lane_ids()

    monkeypatch.setattr(farm.queue, "lane_ids", emptied)
    assert rebuild.step() == 0
    assert rebuild.step() == 1
    assert farm.work_off("w") == 10


def test_a_job_paused_during_a_rebuild_does_not_start_it_over(
    farm: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, other = farm.submit(20), farm.submit(10)
    flush(farm)
    rebuild = Rebuild(farm.db, farm.queues, stop=farm.stop, settle=0.0)
    lane_ids = farm.queue.lane_ids

    def paused() -> list[int]:
        version = jobs.pause(farm.db, 1, job.public_id).version
        farm.queue.drop([lane.id for lane in jobs.lanes(farm.db, job.id)], version=version)
        return lane_ids()

    monkeypatch.setattr(farm.queue, "lane_ids", paused)
    assert rebuild.step() == 1
    assert farm.work_off("w") == 10
    assert farm.job(other).counts.done == 10
