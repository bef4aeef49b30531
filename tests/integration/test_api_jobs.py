"""Jobs over HTTP: from submission to the end, and every change of state."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from promptmill import leases, wakeups
from promptmill.store import jobs as stored_jobs
from tests.integration.api_farm import ApiFarm
from tests.servers import wait_until

pytestmark = pytest.mark.servers


@pytest.fixture
def farm(tmp_path: Path, valkey_url: str) -> Iterator[ApiFarm]:
    with ApiFarm(tmp_path, valkey_url) as served:
        yield served


def lanes_of(farm: ApiFarm, id: str) -> dict[int, leases.LaneCount]:
    job = stored_jobs.get(farm.db, None, id)
    return farm.queue.snapshot([lane.id for lane in stored_jobs.lanes(farm.db, job.id)])


def queued(farm: ApiFarm, id: str) -> int:
    return sum(lane.queued for lane in lanes_of(farm, id).values())


def test_a_submission_is_accepted_queued_and_rendered(farm: ApiFarm) -> None:
    answer = farm.post_rows(["a heart", "a star"], name="two", seed="7")
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert job["object"] == "job"
    assert (job["name"], job["model"], job["seed"]) == ("two", farm.model, 7)
    assert job["state"] == "queued"
    assert job["counts"] == {"total": 2, "queued": 2, "done": 0, "failed": 0, "cancelled": 0}
    assert job["eta_seconds"] is None
    assert queued(farm, job["id"]) == 2

    assert farm.worker.drain() == 2
    now = farm.job(job["id"])
    assert now["counts"] == {"total": 2, "queued": 0, "done": 2, "failed": 0, "cancelled": 0}
    assert now["state"] == "running"  # until control completes it
    assert now["bytes"] > 0


def test_a_json_document_is_a_submission(farm: ApiFarm) -> None:
    answer = farm.http.post("/v1/jobs", json={"prompts": ["one", "two"], "model": farm.model})
    assert answer.status_code == 202, answer.text
    assert [i["prompt"] for i in farm.images(answer.json()["id"])] == ["one", "two"]


def test_a_job_without_a_live_worker_says_so(farm: ApiFarm) -> None:
    job = farm.submit(["a heart"])
    assert job["cold"] is True
    assert job["notice"] == f"no worker serves the model {farm.model} now"
    farm.worker.report()
    time.sleep(1.1)  # a look at the workers is believed for a second
    now = farm.job(job["id"])
    assert (now["cold"], now["notice"]) == (False, None)


def test_a_job_whose_workers_all_drain_says_so(farm: ApiFarm) -> None:
    job = farm.submit(["a heart"])["id"]
    farm.queue.report("drained", {"state": "draining"}, ttl=10)
    time.sleep(1.1)
    now = farm.job(job)
    farm.queue.forget("drained")
    assert now["cold"] is True
    assert now["notice"] == f"no worker serves the model {farm.model} now"


def test_images_of_a_silent_worker_are_told(farm: ApiFarm) -> None:
    job = farm.submit([f"prompt {n}" for n in range(9)])["id"]
    farm.worker.report()
    assert farm.queue.lease("gone", 5, ttl=10) is not None  # and never renewed
    assert farm.queue.lease("alive", 2, ttl=600) is not None

    def told() -> str:
        return str(farm.job(job)["notice"])

    wait_until(lambda: "silent" in told(), seconds=9, what="the notice")
    assert "5 images wait for the lease of a silent worker, " in told()
    farm.http.post(f"/v1/jobs/{job}/pause")
    assert farm.job(job)["notice"] is None


def test_a_dry_run_writes_nothing(farm: ApiFarm) -> None:
    before = farm.footprint()
    answer = farm.post_rows(["a heart", "a star"], dry_run="true")
    assert answer.status_code == 200
    assert answer.json()["images"] == 2
    assert farm.footprint() == before


def test_an_idempotent_replay_answers_the_same_job(farm: ApiFarm) -> None:
    key = {"idempotency-key": "once"}
    first = farm.post_rows(["a heart"], headers=key)
    again = farm.post_rows(["a heart"], headers=key)
    assert again.status_code == 202
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["idempotent-replayed"] == "true"
    assert len(farm.http.get("/v1/jobs").json()["data"]) == 1


def test_pages_of_jobs_run_from_the_newest(farm: ApiFarm) -> None:
    ids = [farm.submit([f"prompt {n}"])["id"] for n in range(5)]
    first = farm.http.get("/v1/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in first["data"]] == ids[:2:-1]
    assert (first["first_id"], first["last_id"]) == (ids[4], ids[3])
    assert first["has_more"] is True
    rest = farm.http.get("/v1/jobs", params={"limit": 10, "after": first["last_id"]}).json()
    assert [job["id"] for job in rest["data"]] == ids[2::-1]
    assert rest["has_more"] is False


def test_jobs_are_filtered_by_state(farm: ApiFarm) -> None:
    live = farm.submit(["a"])["id"]
    paused = farm.submit(["b"])["id"]
    farm.http.post(f"/v1/jobs/{paused}/pause")
    found = farm.http.get("/v1/jobs", params={"state": "paused"}).json()["data"]
    assert [job["id"] for job in found] == [paused]
    found = farm.http.get("/v1/jobs", params={"state": "running"}).json()["data"]
    assert [job["id"] for job in found] == [live]
    unknown = farm.http.get("/v1/jobs", params={"state": "lost"})
    assert unknown.status_code == 400


def test_pause_empties_the_queue_and_resume_restores_what_is_left(farm: ApiFarm) -> None:
    id = farm.submit([f"prompt {n}" for n in range(20)])["id"]
    farm.worker.batch()
    paused = farm.http.post(f"/v1/jobs/{id}/pause")
    assert (paused.status_code, paused.json()["state"]) == (200, "paused")
    assert queued(farm, id) == 0
    assert farm.worker.batch() == 0

    resumed = farm.http.post(f"/v1/jobs/{id}/resume")
    assert resumed.status_code == 200
    assert queued(farm, id) == 12
    assert farm.worker.drain() == 12
    assert farm.job(id)["counts"]["done"] == 20


def test_cancel_keeps_what_was_done(farm: ApiFarm) -> None:
    id = farm.submit([f"prompt {n}" for n in range(20)])["id"]
    farm.worker.batch()
    cancelled = farm.http.post(f"/v1/jobs/{id}/cancel").json()
    assert cancelled["state"] in ("cancelling", "cancelled")
    assert cancelled["counts"] == {
        "total": 20,
        "queued": 0,
        "done": 8,
        "failed": 0,
        "cancelled": 12,
    }
    assert queued(farm, id) == 0
    assert farm.http.post(f"/v1/jobs/{id}/cancel").status_code == 200
    refused = farm.http.post(f"/v1/jobs/{id}/pause")
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "illegal_transition"


def test_retry_takes_error_codes_and_keeps_the_seeds(farm: ApiFarm) -> None:
    id = farm.submit(["fail one", "a heart", "fail two"])["id"]
    farm.worker.drain()
    seeds = {i["index"]: i["seed"] for i in farm.images(id)}
    codes = farm.http.get(f"/v1/jobs/{id}/failures").json()
    assert codes == {"object": "failures", "job_id": id, "codes": {"render_failed": 2}}

    none = farm.http.post(f"/v1/jobs/{id}/retry", json={"codes": ["other"]}).json()
    assert none["retried"] == 0
    again = farm.http.post(f"/v1/jobs/{id}/retry", params={"code": "render_failed"}).json()
    assert again["retried"] == 2
    assert again["generation"] == 1
    assert again["counts"]["failed"] == 0
    assert queued(farm, id) == 2
    assert farm.worker.drain() == 2
    assert {i["index"]: i["seed"] for i in farm.images(id)} == seeds


def test_a_retry_of_a_paused_job_waits_for_its_resume(farm: ApiFarm) -> None:
    id = farm.submit(["fail one", *[f"prompt {n}" for n in range(10)]])["id"]
    farm.worker.batch()
    farm.http.post(f"/v1/jobs/{id}/pause")
    again = farm.http.post(f"/v1/jobs/{id}/retry").json()
    assert (again["retried"], again["state"]) == (1, "paused")
    assert queued(farm, id) == 0
    farm.http.post(f"/v1/jobs/{id}/resume")
    assert queued(farm, id) == 4


def test_deleting_a_live_job_cancels_it_first(farm: ApiFarm) -> None:
    id = farm.submit(["a heart"])["id"]
    answer = farm.http.delete(f"/v1/jobs/{id}")
    assert answer.status_code == 202
    assert answer.json() == {
        "id": id,
        "object": "job",
        "deleted": False,
        "state": "cancelling",
    }
    assert farm.worker.drain() == 0


def test_rate_and_eta_follow_the_work(farm: ApiFarm) -> None:
    id = farm.submit([f"prompt {n}" for n in range(400)])["id"]
    started = time.monotonic()
    while time.monotonic() - started < 2.5:
        farm.worker.batch()
        farm.job(id)
        time.sleep(0.05)
    now = farm.job(id)
    done, spent = now["counts"]["done"], time.monotonic() - started
    assert now["images_per_second"] == pytest.approx(done / spent, rel=0.3)
    left = now["counts"]["queued"] / now["images_per_second"]
    assert now["eta_seconds"] == pytest.approx(left, rel=0.2, abs=0.2)


def test_a_large_upload_is_streamed(farm: ApiFarm) -> None:
    def body() -> Iterator[bytes]:
        for n in range(20_000):
            yield json.dumps({"prompt": f"prompt {n}"}).encode() + b"\n"

    answer = farm.http.post(
        "/v1/jobs", content=body(), headers={"content-type": "application/x-ndjson"}
    )
    assert answer.status_code == 202, answer.text
    assert answer.json()["counts"]["total"] == 20_000
    assert queued(farm, answer.json()["id"]) == 20_000


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "10.0.0.7:8080", "169.254.169.254", "127.1", "2130706433", "localhost"],
)
def test_a_webhook_that_says_it_leads_inside_is_refused_at_once(farm: ApiFarm, host: str) -> None:
    before = farm.footprint()
    answer = farm.post_rows(["a heart"], webhook=f"http://{host}/hook")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "webhook"
    assert "PROMPTMILL_WEBHOOK_NETWORKS" in answer.json()["error"]["message"]
    assert farm.footprint() == before


def test_whoever_waits_calls_the_workers_and_wakes_one_where_none_hears(
    farm: ApiFarm, valkey_url: str
) -> None:
    client = redis.Redis.from_url(valkey_url)
    messages = wakeups.PREFIX + wakeups.queue_name(farm.model)
    farm.worker.report()  # idle
    farm.submit(["a heart"], priority="interactive")
    assert client.llen(messages) == 1
    client.delete(messages)
    stop = threading.Event()
    worker = farm.queue.calls(stop)
    farm.submit(["a star"], priority="interactive")
    assert next(worker) is None
    assert client.llen(messages) == 0
    farm.submit(["a rocket"])
    assert client.llen(messages) == 1
    stop.set()
    assert list(worker) == []
    client.close()
