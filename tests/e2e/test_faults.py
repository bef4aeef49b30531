"""Whatever dies, the job completes and nothing is lost, doubled or failed unjustly."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading

import httpx
import pytest

from promptmill import wakeups
from tests.e2e.conftest import Stack
from tests.e2e.farm import Farm
from tests.servers import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

BATCH_MS = "150"


def prompts(count: int, word: str = "picture") -> list[str]:
    return [f"{word} number {i}" for i in range(count)]


def all_done(farm: Farm, job: str, count: int, *, seconds: float = 180) -> None:
    farm.wait(job, seconds=seconds)
    assert farm.check(job) == {"done": count}


@pytest.mark.parametrize("packing", ["image", "tar"])
def test_a_worker_killed_three_times_in_mid_batch(stack: Stack, packing: str) -> None:
    farm = stack.make().start(workers=2)
    count = 1600  # so many that work is left for a worker that has just started
    job = farm.submit(prompts(count), steps=BATCH_MS, packing=packing)["id"]
    for kill in range(3):
        farm.wait_done(job, 64 * (kill + 1))
        farm.wait_leasing(farm.workers[0])
        farm.workers.pop(0).kill()
        farm.add_worker()
    all_done(farm, job, count)
    wait_until(lambda: not farm.orphans(job), seconds=30, what="orphans are swept")
    assert {i["kind"] for i in farm.incidents()} <= {"lost"}


def test_a_worker_stopped_for_longer_than_its_lease_comes_back_as_a_zombie(stack: Stack) -> None:
    farm = stack.make().start(workers=2)
    job = farm.submit(prompts(400), steps=BATCH_MS)["id"]
    farm.wait_leasing(farm.workers[0])
    farm.freeze(farm.workers[0])
    wait_until(lambda: bool(farm.incidents()), seconds=20, what="its leases are reaped")
    farm.workers[0].signal(signal.SIGCONT)
    all_done(farm, job, 400)


def test_the_api_killed_in_mid_upload_and_the_upload_sent_again(stack: Stack) -> None:
    farm = stack.make().start()
    lines = [b'{"prompt": "a house %d"}\n' % i for i in range(12_000)]
    halfway, go_on = threading.Event(), threading.Event()

    def slowly():  # type: ignore[no-untyped-def]
        yield from lines[:11_000]
        halfway.set()
        go_on.wait(10)
        yield from lines[11_000:]

    def upload() -> None:
        with contextlib.suppress(httpx.TransportError), httpx.Client(timeout=30) as client:
            client.post(
                f"{farm.http.base_url}/v1/jobs?packing=tar",
                content=slowly(),
                headers={"content-type": "application/x-ndjson", "idempotency-key": "k"},
            )

    thread = threading.Thread(target=upload)
    thread.start()
    assert halfway.wait(10)
    wait_until(
        lambda: bool(farm.query("SELECT 1 FROM segments LIMIT 1")),
        seconds=10,
        what="a first segment is written",
    )
    farm.api.kill()
    go_on.set()
    thread.join(30)
    farm.start_api()
    assert farm.http.get("/v1/jobs").json()["data"] == []
    headers = {"content-type": "application/x-ndjson", "idempotency-key": "k"}

    def again() -> bool:
        answer = farm.http.post("/v1/jobs?packing=tar", content=b"".join(lines), headers=headers)
        if answer.status_code == 409:
            assert answer.json()["error"]["code"] == "in_progress"
            assert 0 < float(answer.headers["retry-after"]) <= 30
            return False
        assert answer.status_code in (200, 202), answer.text
        return True

    wait_until(again, seconds=45, what="the silent upload is taken over")
    [job] = farm.http.get("/v1/jobs").json()["data"]
    all_done(farm, job["id"], 12_000)


def test_the_api_killed_between_commit_and_enqueue_is_one_repair(stack: Stack) -> None:
    farm = stack.make().start()
    farm.api.kill()
    farm.start_api(PROMPTMILL_FAILPOINTS="submit.committed=exit")
    with pytest.raises(httpx.TransportError):
        farm.submit(prompts(100))
    farm.start_api()
    [job] = farm.http.get("/v1/jobs").json()["data"]
    all_done(farm, job["id"], 100)
    assert farm.control.text().count("audit.repaired") == 1


@pytest.mark.parametrize("how", ["kill", "flush"])
def test_redis_killed_or_flushed_three_times(stack: Stack, how: str) -> None:
    farm = stack.make().start(workers=2)
    job = farm.submit(prompts(500), steps=BATCH_MS)["id"]
    for round in range(3):
        farm.wait_done(job, 50 * (round + 1))
        if how == "kill":
            stack.queue.kill()
            stack.queue.start()
        else:
            farm.redis().flushall()
    all_done(farm, job, 500)
    wait_until(lambda: not farm.orphans(job), seconds=30, what="orphans are swept")


def test_postgres_restarted(fleet: Stack) -> None:
    farm = fleet.make().start(workers=2)
    assert fleet.database is not None
    job = farm.submit(prompts(400), steps=BATCH_MS)["id"]
    for round in range(2):
        farm.wait_done(job, 64 * (round + 1))
        fleet.database.kill()
        fleet.database.start()
        wait_until(farm.ready, seconds=20, what="the API answers")
        wait_until(
            lambda: farm.http.get("/readyz").status_code == 200, seconds=20, what="the API is ready"
        )
    all_done(farm, job, 400)


def test_the_celery_queue_deleted_costs_only_time(stack: Stack) -> None:
    farm = stack.make().start()
    wait_until(lambda: farm.serving() == 1, seconds=60, what="the worker serves")
    farm.workers[0].signal(signal.SIGSTOP)
    job = farm.submit(prompts(40))["id"]
    redis = farm.redis()
    lists = [k for k in redis.keys("*") if wakeups.queue_name("stub").encode() in k]
    redis.delete(*lists)
    farm.workers[0].signal(signal.SIGCONT)
    all_done(farm, job, 40)


@pytest.mark.parametrize(
    "site",
    ["leased", "fetched", "rendered", "put", "committed"],
)
@pytest.mark.parametrize("action", ["exit", "down"])
def test_each_step_of_a_slot_may_die_or_fail(embedded: Stack, site: str, action: str) -> None:
    farm = embedded.make().start(workers=0)
    dying = farm.add_worker(PROMPTMILL_FAILPOINTS=f"slot.{site}={action}")
    job = farm.submit(prompts(100), steps="20")["id"]
    if action == "exit":
        assert dying.popen.wait(30) == -signal.SIGKILL
        farm.add_worker()
    all_done(farm, job, 100)
    wait_until(lambda: not farm.orphans(job), seconds=30, what="orphans are swept")


@pytest.mark.parametrize("count", [1, 32])
def test_three_lost_lease_replies_fail_nobody(stack: Stack, count: int) -> None:
    """The lease stands in Redis, its worker never hears of it: it expires and comes back. A
    lone image is lost three times."""
    farm = stack.make().start(workers=0)
    job = farm.submit(prompts(count))["id"]
    worker = farm.add_worker(PROMPTMILL_FAILPOINTS="lease.replied=down*3")
    all_done(farm, job, count)
    assert worker.text().count("failpoint lease.replied") == 3
    lost = farm.incidents()
    assert len({i["lease_id"] for i in lost}) == 3
    assert {i["kind"] for i in lost} == {"lost"}
    if count == 1:
        assert sorted(i["attempt"] for i in lost) == [1, 2, 3]


def test_a_worker_asked_to_stop_finishes_commits_and_gives_back(embedded: Stack) -> None:
    farm = embedded.make().start(workers=1)
    job = farm.submit(prompts(300), steps="400")["id"]
    farm.wait_done(job, 32)
    assert farm.workers[0].stop() == 0
    assert not farm.incidents()
    farm.add_worker()
    all_done(farm, job, 300)
    assert not farm.incidents()


def test_a_port_that_is_taken_is_one_line(embedded: Stack) -> None:
    farm = embedded.make()
    assert farm.call("migrate").returncode == 0
    with socket.create_server(("127.0.0.1", farm.port)):
        done = farm.call("api")
    assert done.returncode == 1
    assert "PROMPTMILL_PORT" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
