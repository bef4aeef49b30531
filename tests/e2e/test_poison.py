"""A prompt that breaks the generator fails alone; nobody else pays for it."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Stack
from tests.e2e.counted import CountedFarm
from tests.e2e.farm import Farm
from tests.servers import wait_until
from worker.heart import HUNG

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]


def with_poison(word: str, count: int = 64, place: int = 37) -> list[str]:
    rows = [f"innocent {i}" for i in range(count)]
    rows[place] = f"guilty {word}"
    return rows


def assert_all_at_once(farm: Farm) -> None:
    """The first forward pass held the guilty one and its 63 neighbours."""
    assert isinstance(farm, CountedFarm)
    first = farm.passes()[0]
    assert (first.count, first.words) == (64, {"guilty", "innocent"})


def test_one_that_raises_among_64(stack: Stack) -> None:
    farm = stack.make(CountedFarm, LARGEST_BATCH="64").start()
    job = farm.submit(with_poison("!raise"))["id"]
    farm.wait(job)
    assert_all_at_once(farm)
    assert farm.check(job) == {"done": 63, "failed": 1}
    [failed] = farm.images(job, state="failed")
    assert failed["index"] == 37
    assert failed["error"]["code"] == "render_failed"
    assert "cannot be rendered" in failed["error"]["message"]


def test_one_that_kills_the_process_fails_within_eight_deaths(embedded: Stack) -> None:
    farm = embedded.make(CountedFarm, LARGEST_BATCH="64").start()
    job = farm.submit(with_poison("!exit"))["id"]
    deaths = 0

    def ends() -> bool:
        nonlocal deaths
        if not farm.workers[-1].alive:
            deaths += 1
            farm.add_worker()
        return farm.finished(job)

    wait_until(ends, seconds=150, what="the job ends in spite of its killer")
    assert_all_at_once(farm)
    assert farm.check(job) == {"done": 63, "failed": 1}
    assert deaths <= 8
    [failed] = farm.images(job, state="failed")
    assert failed["index"] == 37
    assert failed["error"]["code"] == "worker_crashed"


def test_a_generator_that_hangs_ends_its_worker(embedded: Stack) -> None:
    farm = embedded.make().start()
    job = farm.submit(["fine", "this one will !hang"])["id"]
    assert farm.workers[0].popen.wait(60) == HUNG
    assert "has not moved" in farm.workers[0].text()
    wait_until(lambda: bool(farm.incidents()), seconds=20, what="its lease is reaped")
    farm.http.delete(f"/v1/jobs/{job}")


def told_caps(farm: Farm) -> list[set[int]]:
    """The caps that each live worker's last heartbeat told."""
    workers = farm.http.get("/v1/workers").json()["data"]
    return [set(worker["caps"].values()) for worker in workers]


def test_out_of_memory_lowers_the_batch_for_good(embedded: Stack) -> None:
    farm = embedded.make().start()
    job = farm.submit([f"!oom4 number {i}" for i in range(100)])["id"]
    farm.wait(job)
    assert farm.check(job) == {"done": 100}
    wait_until(lambda: told_caps(farm) == [{4}], seconds=30, what="the worker tells its cap")
    farm.workers[-1].stop()
    farm.redis().flushall()
    farm.add_worker()
    wait_until(lambda: farm.serving() == 1, seconds=60, what="the new worker serves")
    wait_until(lambda: told_caps(farm) == [{4}], seconds=30, what="the new worker knows the cap")
    again = farm.submit([f"!oom4 again {i}" for i in range(64)])["id"]
    farm.wait(again)
    assert farm.check(again) == {"done": 64}
    assert farm.workers[-1].text().count("out of memory") == 0
