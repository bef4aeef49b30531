"""Many users, many workers: fairness, cancel, pause, scaling."""

from __future__ import annotations

import json
import time

import httpx
import pytest

from tests.e2e.conftest import Stack
from tests.e2e.counted import CountedFarm
from tests.e2e.farm import Farm
from tests.servers import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

BATCH = 32


def rows(count: int, word: str = "thing") -> list[str]:
    return [f"{word} {i}" for i in range(count)]


def key_of(farm: Farm, tenant: str) -> dict[str, str]:
    done = farm.call(f"keys create {tenant} --json")
    assert done.returncode == 0, done.stderr
    return {"authorization": f"Bearer {json.loads(done.stdout)['key']}"}


class Tenant:
    """One user of a farm: submits lines of text, and asks for their job."""

    def __init__(self, farm: Farm, name: str) -> None:
        self.farm = farm
        self.name = name  # the first word of every prompt
        self.headers = key_of(farm, name)

    def submit(self, count: int, *, steps: int) -> str:
        answer = self.farm.http.post(
            "/v1/jobs",
            params={"steps": str(steps), "packing": "tar"},
            content="".join(f"{self.name} {i}\n" for i in range(count)),
            headers={**self.headers, "content-type": "text/plain"},
        )
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def look(self, job: str) -> httpx.Response:
        return self.farm.http.get(f"/v1/jobs/{job}", headers=self.headers)

    def ask(self, job: str, action: str) -> None:
        path = f"/v1/jobs/{job}/{action}"
        answer = self.farm.http.post(path, headers=self.headers)
        assert answer.status_code in (200, 202), answer.text

    def done(self, job: str) -> int:
        return int(self.look(job).json()["counts"]["done"])

    def wait_done(self, job: str, count: int) -> None:
        wait_until(
            lambda: self.done(job) >= count,
            seconds=30,
            what=f"{count} images of {self.name} are done",
        )


@pytest.mark.timing
def test_ten_images_do_not_wait_behind_a_hundred_thousand(embedded: Stack) -> None:
    farm = embedded.make(PROMPTMILL_AUTH="keys").start()
    big, small = Tenant(farm, "big"), Tenant(farm, "small")
    flood = big.submit(100_000, steps=300)
    big.wait_done(flood, 2 * BATCH)
    ten = small.submit(10, steps=300)
    before = big.done(flood)
    small.wait_done(ten, 10)
    assert big.done(flood) - before <= 4 * BATCH
    assert small.look(flood).status_code == 404


@pytest.mark.timing
def test_cancel_and_pause_of_a_hundred_thousand_act_within_a_second(stack: Stack) -> None:
    """Measured by when the last forward pass began that held an image of it; the other
    tenant's job goes on."""
    farm = stack.make(CountedFarm, PROMPTMILL_AUTH="keys").start()
    assert isinstance(farm, CountedFarm)
    big, small = Tenant(farm, "big"), Tenant(farm, "small")
    flood, other = big.submit(100_000, steps=100), small.submit(5000, steps=100)
    for action in ("pause", "cancel"):
        big.wait_done(flood, big.done(flood) + 2 * BATCH)
        small.wait_done(other, small.done(other) + BATCH)
        asked = time.time()
        big.ask(flood, action)
        time.sleep(3)
        passes = farm.passes()
        assert max(one.at for one in passes if "big" in one.words) <= asked + 1
        assert max(one.at for one in passes if "small" in one.words) > asked + 2
        if action == "pause":
            assert big.look(flood).json()["state"] == "paused"
            big.ask(flood, "resume")
    wait_until(
        lambda: big.look(flood).json()["state"] == "cancelled", seconds=30, what="it is cancelled"
    )
    counts = big.look(flood).json()["counts"]
    assert counts["done"] + counts["cancelled"] == 100_000
    assert counts["cancelled"] > 90_000
    assert small.look(other).json()["state"] == "running"


def test_a_pause_survives_a_restart_of_every_process(embedded: Stack) -> None:
    farm = embedded.make().start()
    job = farm.submit(rows(300), steps="100")["id"]
    farm.wait_done(job, 32)
    farm.http.post(f"/v1/jobs/{job}/pause")
    for process in farm.processes:
        process.kill()
    embedded.queue.kill()
    embedded.queue.start()
    farm.start()
    time.sleep(4)
    paused = farm.job(job)
    assert paused["state"] == "paused"
    time.sleep(2)
    assert farm.job(job)["counts"] == paused["counts"]
    farm.http.post(f"/v1/jobs/{job}/resume")
    farm.wait(job)
    assert farm.check(job) == {"done": 300}


@pytest.mark.timing
def test_workers_come_and_go_and_the_rate_follows(embedded: Stack) -> None:
    farm = embedded.make(CountedFarm).start(workers=1)
    assert isinstance(farm, CountedFarm)
    job = farm.submit(rows(4000), steps="500", packing="tar")["id"]

    def rate(seconds: float) -> float:
        begun, first = time.monotonic(), farm.job(job)["counts"]["done"]
        time.sleep(seconds)
        return float(farm.job(job)["counts"]["done"] - first) / (time.monotonic() - begun)

    farm.wait_done(job, 64)
    one = rate(4)
    farm.add_worker()
    farm.add_worker()
    time.sleep(10)
    three = rate(4)
    for worker in farm.workers[:2]:
        assert worker.stop() == 0
    time.sleep(2)
    again = rate(4)
    assert three > 2.2 * one
    assert again < 1.5 * one
    farm.add_worker()
    farm.wait(job, seconds=120)
    assert farm.check(job) == {"done": 4000}
    assert farm.rendered() == 4000, "something was rendered twice"
    assert not farm.orphans(job)
    assert not farm.incidents()


def test_a_job_that_nobody_serves_says_so(embedded: Stack) -> None:
    farm = embedded.make().start(workers=1)
    wait_until(lambda: farm.serving() == 1, seconds=60, what="the worker registers its model")
    farm.workers[0].stop()
    job = farm.submit(rows(3))["id"]
    shown = farm.call(f"show {job}")
    assert shown.returncode == 0, shown.stderr
    assert "no worker" in shown.stdout.lower()
    farm.add_worker()
    farm.wait(job)


def test_an_unknown_model_is_404_with_the_names_of_those_there_are(embedded: Stack) -> None:
    farm = embedded.make().start(workers=0)
    answer = farm.http.post("/v1/jobs", json={"model": "nope", "prompts": ["a"]})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert "emoji-gan" in answer.json()["error"]["message"]


def test_the_official_events_stream_ends_with_the_job(embedded: Stack) -> None:
    farm = embedded.make().start()
    job = farm.submit(rows(40), steps="50")["id"]
    seen: list[str] = []
    with httpx.stream("GET", f"{farm.http.base_url}/v1/jobs/{job}/events", timeout=30) as stream:
        for line in stream.iter_lines():
            seen.append(line)
            if line.startswith("data:") and '"completed"' in line:
                break
    assert any(line == "event: progress" for line in seen)
    assert any(line == "event: image" for line in seen)
