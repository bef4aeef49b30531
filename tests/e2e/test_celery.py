"""What operators do with Celery's own tools: drain and resume, events, Flower."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from promptmill import wakeups
from tests.e2e.conftest import Stack
from tests.e2e.farm import Farm
from tests.servers import free_port, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]


def state(farm: Farm) -> str:
    [worker] = farm.http.get("/v1/workers").json()["data"]
    return str(worker["state"])


def test_drain_and_resume_act_on_the_engine(embedded: Stack) -> None:
    farm = embedded.make().start()
    wait_until(lambda: farm.serving() == 1, seconds=60, what="the worker serves")
    app = wakeups.celery_app(farm.settings)
    job = farm.submit([f"thing {i}" for i in range(2000)], steps="100")["id"]
    farm.wait_done(job, 32)
    [reply] = app.control.broadcast("drain", reply=True, timeout=5)
    assert list(reply.values()) == [{"ok": "draining"}]
    time.sleep(1.5)
    assert state(farm) == "draining"
    before = farm.job(job)["counts"]["done"]
    time.sleep(1.5)
    assert farm.job(job)["counts"]["done"] == before
    assert farm.http.get("/v1/workers").json()["data"][0]["leases"] == []
    app.control.broadcast("resume", reply=True, timeout=5)
    farm.wait_done(job, before + 64)
    assert not farm.incidents()
    app.close()


def test_each_micro_batch_is_a_task_in_the_event_stream(embedded: Stack) -> None:
    farm = embedded.make().start()
    wait_until(lambda: farm.serving() == 1, seconds=60, what="the worker serves")
    app = wakeups.celery_app(farm.settings)
    seen: list[dict[str, object]] = []
    enough = threading.Event()

    def watch() -> None:
        def note(event: dict[str, object]) -> None:
            if event.get("name") == "promptmill.render" or seen:
                seen.append(event)
            if event["type"] == "task-succeeded" and seen:
                enough.set()
                receiver.should_stop = True

        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": note})
            while not enough.is_set():
                try:
                    receiver.capture(limit=None, timeout=1, wakeup=False)
                except TimeoutError:
                    continue

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    farm.wait_done(farm.submit(["nobody asked for events yet"])["id"], 1)
    assert not seen
    app.control.enable_events(reply=True, timeout=5)  # as `celery control enable_events`
    job = farm.submit([f"thing {i}" for i in range(40)], steps="50")["id"]
    assert enough.wait(20)
    thread.join(10)
    assert not thread.is_alive()
    received = next(e for e in seen if e["type"] == "task-received")
    assert "width=64" in str(received["kwargs"])
    assert "count" in str(received["kwargs"])
    assert job in str(received["kwargs"])
    app.close()


def test_flower_shows_real_work(embedded: Stack, tmp_path: Path) -> None:
    farm = embedded.make().start()
    wait_until(lambda: farm.serving() == 1, seconds=60, what="the worker serves")
    port = free_port()
    with (tmp_path / "flower.log").open("wb") as log:
        flower = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "celery",
                "-A",
                "promptmill",
                "flower",
                f"--port={port}",
                "--address=127.0.0.1",
            ],
            env={
                **farm.env,
                "FLOWER_UNAUTHENTICATED_API": "true",
            },
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
        )
    try:

        def tasks() -> dict[str, dict[str, object]]:
            try:
                return dict(httpx.get(f"http://127.0.0.1:{port}/api/tasks", timeout=5).json())
            except (httpx.TransportError, ValueError):
                return {}

        def shown() -> bool:
            farm.submit(["a thing"])
            time.sleep(0.5)
            return any(t["name"] == "promptmill.render" for t in tasks().values())

        wait_until(shown, seconds=60, what="Flower lists a micro-batch")
    finally:
        flower.terminate()
        flower.wait(10)
