"""The reaper: a dead worker's spans come back halved and charged, a lone image that kills
its worker three times is failed, and nobody else is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from promptmill import errors
from promptmill.jobs import SOLO_ATTEMPT, ImageState
from promptmill.leases import Lease
from promptmill.store import control, images, jobs
from promptmill.store.database import Database
from tests.integration.control_bench import Bench, Clock, bench, servers
from tests.servers import RedisServer
from worker.control.finaliser import Finaliser
from worker.control.queues import Queues
from worker.control.reaper import Reaper

pytestmark = pytest.mark.servers
SHORT = 0.05  # seconds: a lease that its worker never renews


@pytest.fixture(params=["embedded", "fleet"])
def farm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with bench(*servers(request), tmp_path) as made:
        yield made


def trusted(farm: Bench) -> tuple[Reaper, Clock]:
    """A reaper whose grace period is over."""
    clock = Clock()
    reaper = Reaper(farm.db, farm.queues, farm.settings, clock=clock)
    assert reaper.step() == 0
    clock.now += farm.settings.lease_seconds
    return reaper, clock


def die(farm: Bench, worker: str, *, rendering: bool = True) -> Lease:
    """A worker leases, perhaps begins to render, and is never heard of again."""
    lease = farm.lease(worker, 16, ttl=SHORT)
    assert lease is not None
    if rendering:
        farm.queue.beat(worker, {lease.id: True}, ttl=SHORT)
    time.sleep(SHORT * 1.5)
    return lease


def test_a_dead_workers_lease_comes_back_charged_and_halved(farm: Bench) -> None:
    job = farm.submit(16)
    reaper, _ = trusted(farm)
    dead = die(farm, "w0")
    assert dead.count == 16
    assert reaper.step() == 1
    again = farm.lease("w1", 16)
    assert again is not None
    assert again.count == 8
    assert {span.attempt for span in again.spans} == {1}
    lane = jobs.lanes(farm.db, job.id)[0].id
    assert all(control.charged(farm.db, lane, position, "crash") == 0 for position in range(16))
    farm.commit(farm.works(again))
    farm.queue.ack(again.id)
    assert farm.work_off("w2") == 8
    assert farm.job(job).counts.done == 16


def test_attempts_survive_the_loss_of_redis(farm: Bench) -> None:
    farm.submit(16)
    reaper, _ = trusted(farm)
    die(farm, "w0")
    assert reaper.step() == 1
    lane = farm.queue.lane_ids()[0]
    assert {span.attempt for span in images.gaps(farm.db, lane)} == {1}


def suspect(farm: Bench, reaper: Reaper) -> None:
    """Three deaths, after which the queue leases an image alone in its process."""
    for death in range(SOLO_ATTEMPT):
        die(farm, f"early{death}")
        assert reaper.step() == 1


def test_a_lone_image_that_kills_three_workers_is_failed(farm: Bench) -> None:
    """Deaths count only once the image was alone in its process: six in all."""
    poison = farm.submit(1)
    reaper, _ = trusted(farm)
    suspect(farm, reaper)
    for death in range(2):
        die(farm, f"w{death}")
        assert reaper.step() == 1
        assert farm.job(poison).counts.failed == 0
    die(farm, "w2")
    assert reaper.step() == 1
    assert farm.job(poison).counts.failed == 1
    image = images.get(farm.db, farm.job(poison), 0)
    assert image.state is ImageState.FAILED
    assert image.error_code == "worker_crashed"
    assert farm.lease("w3", 16) is None, "its span does not come back"
    assert farm.queue.depth()["leased"] == 0
    assert Finaliser(farm.db, farm.queues, farm.settings).step() == 1


def test_innocents_are_charged_with_no_crash(farm: Bench) -> None:
    """Deaths in company, and alone before rendering began."""
    job = farm.submit(16)
    reaper, _ = trusted(farm)
    sizes = []
    for death in range(6):
        sizes.append(die(farm, f"w{death}", rendering=death < 3).count)
        assert reaper.step() == 1
    assert min(sizes[:3]) > 1, "rendering had begun in company only"
    lane = jobs.lanes(farm.db, job.id)[0].id
    assert [control.charged(farm.db, lane, position, "crash") for position in range(16)] == [0] * 16
    while farm.work_off("last", 16):
        pass
    counts = farm.job(job).counts
    assert (counts.done, counts.failed) == (16, 0)


def test_a_zombies_late_commit_is_harmless(farm: Bench) -> None:
    job = farm.submit(8)
    reaper, _ = trusted(farm)
    zombie = farm.lease("zombie", 16, ttl=SHORT)
    assert zombie is not None
    works = farm.works(zombie)
    time.sleep(SHORT * 1.5)
    assert reaper.step() == 1
    assert farm.work_off("other") == 8
    farm.commit(works)
    assert not farm.queue.ack(zombie.id)
    assert farm.queue.beat("zombie", {zombie.id: True}, ttl=1.0) == {zombie.id}
    counts = farm.job(job).counts
    assert (counts.done, counts.failed) == (8, 0)


def test_a_control_that_dies_between_database_and_redis_charges_once(farm: Bench) -> None:
    farm.submit(1)
    reaper, _ = trusted(farm)
    suspect(farm, reaper)
    dead = die(farm, "w0")
    expired = farm.queue.expired()
    assert [each.lease.id for each in expired] == [dead.id]
    from worker.control.reaper import incidents

    for _ in range(3):
        control.record_incidents(farm.db, incidents(expired[0]))
    assert control.charged(farm.db, dead.spans[0].lane, 0, "crash") == 1
    assert reaper.step() == 1
    assert control.charged(farm.db, dead.spans[0].lane, 0, "crash") == 1


def test_a_new_leader_waits_one_lease_period(farm: Bench) -> None:
    farm.submit(4)
    clock = Clock()
    reaper = Reaper(farm.db, farm.queues, farm.settings, clock=clock)
    die(farm, "w0")
    assert reaper.step() == 0
    clock.now += farm.settings.lease_seconds * 0.9
    assert reaper.step() == 0
    clock.now += farm.settings.lease_seconds * 0.2
    assert reaper.step() == 1


def test_a_new_epoch_starts_the_wait_anew(farm: Bench) -> None:
    farm.submit(4)
    reaper, clock = trusted(farm)
    die(farm, "w0")
    farm.queue.set_epoch(farm.queue.begin_rebuild())
    assert reaper.step() == 0
    clock.now += farm.settings.lease_seconds
    assert reaper.step() == 1


def test_an_outage_of_redis_starts_the_wait_anew(tmp_path: Path) -> None:
    """Workers that could not renew their leases get a period to do so."""
    with (
        RedisServer() as server,
        bench(f"sqlite:///{tmp_path / 'a.db'}", server.url, tmp_path) as farm,
    ):
        farm.submit(4)
        reaper, clock = trusted(farm)
        lease = farm.lease("w0", 16, ttl=0.3)
        assert lease is not None
        server.kill()
        with pytest.raises(errors.RedisDown):
            reaper.step()
        time.sleep(0.4)
        server.restart()
        assert farm.queue.expired(), "the outage outlived the lease"
        assert reaper.step() == 0
        assert farm.queue.beat("w0", {lease.id: True}, ttl=60.0) == set()
        clock.now += farm.settings.lease_seconds
        assert reaper.step() == 0
        assert farm.queue.ack(lease.id)


def test_an_outage_of_the_database_starts_the_wait_anew(farm: Bench) -> None:
    """A worker that could not commit made no progress and did not beat: no crash of its."""
    farm.submit(1)
    clock = Clock()

    class Flaky(Database):
        down = False

        def read(self, work):  # type: ignore[no-untyped-def]
            if self.down:
                raise errors.DatabaseDown
            return super().read(work)

    db = Flaky(farm.settings.database)
    queues = Queues(db, lambda _: farm.queue)
    reaper = Reaper(db, queues, farm.settings, clock=clock)
    reaper.step()
    clock.now += farm.settings.lease_seconds
    lease = die(farm, "w0")
    db.down = True
    with pytest.raises(errors.DatabaseDown):
        reaper.step()
    db.down = False
    assert reaper.step() == 0
    farm.queue.beat("w0", {lease.id: True}, ttl=60.0)
    clock.now += farm.settings.lease_seconds
    assert reaper.step() == 0
    assert control.charged(db, lease.spans[0].lane, 0, "crash") == 0
    db.close()


def test_leases_of_cancelled_jobs_vanish(farm: Bench) -> None:
    job = farm.submit(4)
    reaper, _ = trusted(farm)
    die(farm, "w0")
    cancelled = jobs.cancel(farm.db, 1, job.public_id)
    farm.queue.drop([lane.id for lane in jobs.lanes(farm.db, job.id)], version=cancelled.version)
    assert reaper.step() == 1
    assert farm.lease("w1", 16) is None
    assert farm.queue.depth()["queued"] == 0


def test_settings_decide_the_period(farm: Bench) -> None:
    clock = Clock()
    slow = replace(farm.settings, lease_seconds=30.0)
    reaper = Reaper(farm.db, farm.queues, slow, clock=clock)
    farm.submit(1)
    die(farm, "w0")
    reaper.step()
    clock.now += 29.0
    assert reaper.step() == 0
    clock.now += 1.5
    assert reaper.step() == 1
