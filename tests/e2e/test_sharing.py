"""Many users, many workers: fairness, cancel, pause, scaling, deletion, equal bytes."""

from __future__ import annotations

import json
import time

import httpx
import pytest

from tests.e2e.conftest import Stack
from tests.e2e.farm import Farm
from tests.servers import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(170)]

BATCH = 32


def rows(count: int, word: str = "thing") -> list[str]:
    return [f"{word} {i}" for i in range(count)]


def key_of(farm: Farm, tenant: str) -> dict[str, str]:
    done = farm.call(f"keys create {tenant} --json")
    assert done.returncode == 0, done.stderr
    return {"authorization": f"Bearer {json.loads(done.stdout)['key']}"}


@pytest.mark.timing
def test_ten_images_do_not_wait_behind_a_hundred_thousand(embedded: Stack) -> None:
    farm = embedded.make(PROMPTMILL_AUTH="keys").start()
    big, small = key_of(farm, "big"), key_of(farm, "small")
    body = "".join(f"picture {i}\n" for i in range(100_000))
    query = {"steps": "300"}
    text = {"content-type": "text/plain"}
    answer = farm.http.post("/v1/jobs", params=query, content=body, headers={**big, **text})
    assert answer.status_code == 202, answer.text
    flood = answer.json()["id"]

    def done_of(job: str, key: dict[str, str]) -> int:
        return int(farm.http.get(f"/v1/jobs/{job}", headers=key).json()["counts"]["done"])

    wait_until(lambda: done_of(flood, big) >= 2 * BATCH, seconds=30, what="the flood renders")
    answer = farm.http.post(
        "/v1/jobs",
        params=query,
        content="".join(f"small {i}\n" for i in range(10)),
        headers={**small, **text},
    )
    before = done_of(flood, big)
    ten = answer.json()["id"]
    wait_until(lambda: done_of(ten, small) == 10, seconds=30, what="the ten are done")
    assert done_of(flood, big) - before <= 4 * BATCH
    assert farm.http.get(f"/v1/jobs/{flood}", headers=small).status_code == 404


@pytest.mark.timing
@pytest.mark.parametrize("action", ["cancel", "pause"])
def test_cancel_and_pause_act_within_a_second(stack: Stack, action: str) -> None:
    farm = stack.make().start()
    job = farm.submit(rows(5000), steps="100")["id"]
    farm.wait_done(job, 64)
    assert farm.http.post(f"/v1/jobs/{job}/{action}").status_code in (200, 202)
    time.sleep(1.0)
    after_a_second = farm.job(job)["counts"]["done"]
    time.sleep(2.0)
    assert farm.job(job)["counts"]["done"] - after_a_second == 0
    if action == "cancel":
        counts = farm.wait(job)["counts"]
        assert counts["done"] + counts["cancelled"] == 5000
        assert counts["cancelled"] > 4000
    else:
        assert farm.job(job)["state"] == "paused"
        assert farm.http.post(f"/v1/jobs/{job}/resume").status_code in (200, 202)
        farm.wait_done(job, after_a_second + 64)


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
    farm = embedded.make().start(workers=1)
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
    assert not farm.orphans(job)
    assert not farm.incidents()


def test_a_job_that_nobody_serves_says_so(embedded: Stack) -> None:
    farm = embedded.make().start(workers=1)
    wait_until(lambda: farm.serving() == 1, seconds=20, what="the worker registers its model")
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
