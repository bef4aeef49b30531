"""Server-sent events of a job."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import pytest

from api import feed, rates
from api.farm import WORKERS_FOR
from promptmill.store import control
from promptmill.store import jobs as stored_jobs
from tests.integration.api_farm import ApiFarm, each, events
from tests.servers import ValkeyServer

pytestmark = pytest.mark.servers


@pytest.fixture
def farm(tmp_path: Path, valkey_url: str) -> Iterator[ApiFarm]:
    with ApiFarm(tmp_path, valkey_url) as served:
        yield served


def work(farm: ApiFarm, *, after: float = 0.3, every: float = 0.02) -> threading.Thread:
    """Renders everything and completes it, from another thread."""

    def run() -> None:
        time.sleep(after)
        while farm.worker.batch(4):
            time.sleep(every)
        control.finish_ready(farm.db)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_events_tell_a_job_to_its_end(farm: ApiFarm) -> None:
    id = farm.submit([f"prompt {n}" for n in range(30)] + ["fail"])["id"]
    with farm.http.stream("GET", f"/v1/jobs/{id}/events", timeout=20) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        thread = work(farm)
        seen = events(response, lambda *_: False)  # the stream ends with the job
    thread.join()
    states = [data["state"] for event, data, _ in seen if event == "state"]
    assert states[0] == "queued"
    assert states[-1] == "completed"
    images = [data for event, data, _ in seen if event == "image"]
    assert sorted(image["index"] for image in images) == list(range(31))
    assert {i["index"]: i["state"] for i in images}[30] == "failed"
    last = [data for event, data, _ in seen if event == "progress"][-1]
    assert last["counts"] == {"total": 31, "queued": 0, "done": 30, "failed": 1, "cancelled": 0}
    assert not [event for event, _, _ in seen if event == "resync"]


def test_who_asks_because_of_news_is_told_nothing_older(farm: ApiFarm) -> None:
    """However often the job is polled meanwhile, and its answers kept."""
    id = farm.submit(["one", "two"])["id"]
    over = threading.Event()

    def poll() -> None:
        while not over.wait(0.005):
            farm.http.get(f"/v1/jobs/{id}")

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        with farm.http.stream("GET", f"/v1/jobs/{id}/events", timeout=20) as response:
            while farm.worker.batch(4):
                continue
            time.sleep(1.5)  # the listener hears by now
            control.finish_ready(farm.db)
            farm.queue.publish(id)
            lines = response.iter_lines()
            while '"state":"completed"' not in next(lines):
                continue
            assert farm.http.get(f"/v1/jobs/{id}").json()["state"] == "completed"
    finally:
        over.set()
        thread.join()


def test_news_arrive_at_once_when_the_queue_tells_them(farm: ApiFarm) -> None:
    id = farm.submit(["one", "two"])["id"]
    with farm.http.stream("GET", f"/v1/jobs/{id}/events", timeout=20) as response:
        lines = response.iter_lines()
        while next(lines) != "event: state":
            continue
        time.sleep(1.5)  # the listener hears by now
        started = time.monotonic()
        farm.worker.batch(1)
        while next(lines) != "event: image":
            continue
        assert time.monotonic() - started < 0.6


def test_a_model_that_goes_by_steps_tells_them(farm: ApiFarm) -> None:
    id, other = farm.submit(["one", "two"])["id"], farm.submit(["three"])["id"]
    other_worker = replace(farm.worker, name="w2")
    at = {"jobs": [id], "step": 3, "steps": 40, "measuring": True}
    farm.worker.report(state="busy", rendering=at)
    other_worker.report(state="busy", rendering={**at, "step": 1})
    with farm.http.stream("GET", f"/v1/jobs/{id}/events", timeout=20) as response:
        told = (data for event, data, _ in each(response) if event == "progress")
        shown = {"step": 3, "steps": 40, "measuring": True}
        assert next(one for one in told if one["rendering"])["rendering"] == shown
        farm.worker.report(state="busy", rendering={**at, "step": 20, "measuring": False})
        assert next(one for one in told if one["rendering"]["step"] > 3)["rendering"] == {
            "step": 20, "steps": 40, "measuring": False,
        }  # fmt: skip
        farm.worker.report()
        other_worker.report()
        assert next(one for one in told if one["rendering"] is None)["counts"]["done"] == 0
    assert (farm.job(other)["rendering"], farm.job(other)["state"]) == (None, "queued")


def test_a_job_that_is_rendered_runs_and_workers_do_not_name_it(farm: ApiFarm) -> None:
    id = farm.submit(["one"])["id"]
    at = {"step": 3, "steps": 40, "measuring": False}
    time.sleep(WORKERS_FOR)
    farm.worker.report(state="busy", rendering={**at, "jobs": [id]})
    assert (farm.job(id)["rendering"], farm.job(id)["state"]) == (at, "running")
    [worker] = farm.http.get("/v1/workers").json()["data"]
    assert worker["rendering"] == at


def test_a_tenant_has_so_many_streams_and_no_more(
    farm: ApiFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "STREAMS", 2)
    path = f"/v1/jobs/{farm.submit(['one'])['id']}/events"
    with farm.http.stream("GET", path) as first, farm.http.stream("GET", path) as second:
        heard = first.iter_lines(), second.iter_lines()  # kept: one that goes closes its stream
        assert [next(lines) for lines in heard]
        with farm.http.stream("GET", path, timeout=10) as refused:
            assert refused.status_code == 429
            refused.read()
            assert refused.json()["error"]["code"] == "too_many_streams"
            assert int(refused.headers["retry-after"]) >= 1
        second.close()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:  # the server hears that the second is gone
            with farm.http.stream("GET", path) as again:
                if again.status_code == 200:
                    return
            time.sleep(0.1)
        pytest.fail("a closed stream keeps its place")


def test_a_resumed_stream_says_what_it_missed(farm: ApiFarm) -> None:
    id = farm.submit([f"prompt {n}" for n in range(8)])["id"]
    path = f"/v1/jobs/{id}/events"

    def first_state(event: str, _: dict[str, object]) -> bool:
        return event == "state"

    with farm.http.stream("GET", path, timeout=20) as response:
        mark = events(response, first_state)[-1][2]
    assert mark is not None
    farm.worker.batch(4)
    with farm.http.stream("GET", path, headers={"last-event-id": mark}, timeout=20) as response:
        resumed = events(response, first_state)
    assert [event for event, _, _ in resumed] == ["resync", "progress", "state"]
    assert resumed[1][1]["counts"]["done"] == 4
    with farm.http.stream(
        "GET", path, headers={"last-event-id": str(resumed[2][2])}, timeout=20
    ) as response:
        unchanged = events(response, first_state)
    assert [event for event, _, _ in unchanged] == ["progress", "state"]


def test_who_joins_with_a_job_that_was_seen_to_go_on_is_told_to_resync(
    farm: ApiFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its images were told to the others before, and nothing else may happen for long."""
    monkeypatch.setattr(rates, "RATE_WINDOW", 0.2)
    job = stored_jobs.get(farm.db, None, farm.submit([f"prompt {n}" for n in range(8)])["id"])

    async def main() -> tuple[feed.Sight | None, feed.Sight | None]:
        feeds = feed.Feeds(farm.app.state.farm)
        try:
            async with feeds.listen(job) as first:
                told = await first.next(5.0)
                await anyio.to_thread.run_sync(farm.worker.batch, 4)
                while told is not None and not told.images:
                    told = await first.next(5.0)
                await anyio.sleep(1.5)  # no pace is told any more
                async with feeds.listen(job) as late:
                    return told, await late.next(5.0)
        finally:
            await feeds.close()

    told, resync = anyio.run(main)
    assert told is not None and len(told.images) == 4
    assert resync is not None and resync.job is not None
    assert (resync.missed, resync.job.counts.done) == (True, 4)


def test_a_client_that_knows_the_end_is_told_not_to_come_back(farm: ApiFarm) -> None:
    id = farm.submit(["one"])["id"]
    work(farm, after=0).join()
    with farm.http.stream("GET", f"/v1/jobs/{id}/events", timeout=20) as response:
        told = events(response, lambda *_: False)
    mark = {"last-event-id": str(told[-1][2])}
    assert farm.http.get(f"/v1/jobs/{id}/events", headers=mark).status_code == 204


def test_many_clients_share_one_watcher_and_leave_no_trace(farm: ApiFarm) -> None:
    id = farm.submit(["one", "two"])["id"]
    feeds = farm.app.state.feeds
    with httpx.Client(base_url=farm.url, timeout=20) as other:
        streams = [
            client.stream("GET", f"/v1/jobs/{id}/events") for client in (farm.http, other, other)
        ]
        for stream in streams:
            stream.__enter__()
        deadline = time.monotonic() + 5
        while len(feeds._watches[id].listeners) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(feeds._watches) == 1
        assert len(feeds._watches[id].listeners) == 3
        for stream in streams:
            stream.__exit__(None, None, None)
    deadline = time.monotonic() + 10
    while feeds._watches and time.monotonic() < deadline:
        time.sleep(0.1)
    assert feeds._watches == {}


def test_a_deleted_job_ends_its_stream(farm: ApiFarm) -> None:
    id = farm.submit(["one"])["id"]
    work(farm, after=0).join()
    retried = farm.submit(["two"])["id"]
    with farm.http.stream("GET", f"/v1/jobs/{retried}/events", timeout=20) as response:
        assert farm.http.delete(f"/v1/jobs/{retried}").status_code == 202
        seen = events(
            response, lambda event, data: event == "state" and data["state"] == "cancelling"
        )
    assert seen[-1][0] == "state"
    assert farm.http.delete(f"/v1/jobs/{id}").status_code == 200
    assert farm.http.get(f"/v1/jobs/{id}/events").status_code == 404


def test_without_redis_news_come_from_the_database(tmp_path: Path) -> None:
    with ValkeyServer() as server, ApiFarm(tmp_path, server.url) as farm:
        id = farm.submit(["one"])["id"]
        server.kill()
        with farm.http.stream("GET", f"/v1/jobs/{id}/events", timeout=20) as response:
            paused = farm.http.post(f"/v1/jobs/{id}/pause")
            assert (paused.status_code, paused.json()["state"]) == (200, "paused")
            seen = events(
                response, lambda event, data: event == "state" and data["state"] == "paused"
            )
        assert seen[-1][0] == "state"
        assert farm.http.post(f"/v1/jobs/{id}/cancel").json()["state"] == "cancelling"


def test_streams_end_when_the_server_stops(farm: ApiFarm) -> None:
    id = farm.submit(["one"])["id"]
    with farm.http.stream("GET", f"/v1/jobs/{id}/events", timeout=20) as response:
        started = time.monotonic()
        farm.server.should_exit = True
        events(response, lambda *_: False)
    assert time.monotonic() - started < 4
