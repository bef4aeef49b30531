"""Wake-ups on Valkey and on Redis: few, small, JSON, and never in the caller's way."""

from __future__ import annotations

import json
import logging
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from celery import Celery

from promptmill import wakeups
from promptmill.redis_queue import RedisQueue
from promptmill.settings import Settings

pytestmark = [pytest.mark.servers, pytest.mark.timeout(60)]


@pytest.fixture
def queue(queue_server_url: str) -> Iterator[RedisQueue]:
    made = RedisQueue(queue_server_url, f"m-{uuid.uuid4().hex[:8]}")
    for worker, state in (("a", "idle"), ("b", "idle"), ("c", "busy")):
        made.report(worker, {"state": state}, ttl=60)
    yield made
    made.close()


@pytest.fixture
def app(queue_server_url: str) -> Iterator[Celery]:
    made = wakeups.celery_app(replace(Settings(), redis_url=queue_server_url))
    yield made
    made.close()


@pytest.fixture
def sent(queue_server_url: str, queue: RedisQueue) -> Iterator[Callable[[], list[str]]]:
    """The messages that wait now."""
    client = redis.Redis.from_url(queue_server_url, decode_responses=True)
    name = wakeups.PREFIX + wakeups.queue_name(queue.model)
    yield lambda: [str(message) for message in client.lrange(name, 0, -1)]
    client.delete(name)
    client.close()


def test_one_for_each_idle_worker(
    app: Celery, queue: RedisQueue, sent: Callable[[], list[str]]
) -> None:
    assert wakeups.wake(app, queue, queue.model) == 2
    assert len(sent()) == 2
    assert wakeups.wake(app, queue, queue.model) == 0
    assert len(sent()) == 2
    queue.report("c", {"state": "idle"}, ttl=60)
    assert wakeups.wake(app, queue, queue.model) == 1


def test_nobody_idle(app: Celery, queue: RedisQueue, sent: Callable[[], list[str]]) -> None:
    for worker in ("a", "b"):
        queue.report(worker, {"state": "busy"}, ttl=60)
    assert wakeups.wake(app, queue, queue.model) == 0
    assert len(sent()) == 0


def test_nobody_is_woken_who_drains(app: Celery, queue: RedisQueue) -> None:
    for worker in ("a", "b", "c"):
        queue.report(worker, {"state": "draining"}, ttl=60)
    assert wakeups.wake(app, queue, queue.model) == 0


def test_the_body_is_the_models_name(
    app: Celery, queue: RedisQueue, sent: Callable[[], list[str]]
) -> None:
    wakeups.wake(app, queue, queue.model)
    message = json.loads(sent()[0])
    assert message["content-type"] == "application/json"
    assert message["headers"]["task"] == wakeups.TASK
    assert message["headers"]["argsrepr"] == repr((queue.model,))
    assert message["properties"]["expiration"] == "60000"
    assert message["properties"]["delivery_info"] == {
        "exchange": "",
        "routing_key": f"gpu.{queue.model}",
    }
    assert app.conf.accept_content == ["json"]


@pytest.mark.parametrize("kind", ["absent", "mute", "refused", "mute-tcp"])
def test_a_broken_broker_holds_nobody_up(
    kind: str, queue: RedisQueue, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s"
    urls = {"absent": f"unix://{path}", "mute": f"unix://{path}", "refused": "redis://127.0.0.1:1"}
    with socket.socket(socket.AF_UNIX) as local, socket.socket() as tcp:
        if kind == "mute":
            local.bind(str(path))
            local.listen()
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        url = urls.get(kind, f"redis://127.0.0.1:{tcp.getsockname()[1]}/0")
        app = wakeups.celery_app(replace(Settings(), redis_url=url))
        started = time.monotonic()
        with caplog.at_level(logging.WARNING, "promptmill.wakeups"):
            assert wakeups.wake(app, queue, queue.model) == 0
        assert time.monotonic() - started < 4
    assert queue.model in caplog.text
    app.close()


def test_a_connection_that_was_kept_and_has_ended_costs_no_wake_up(
    app: Celery, queue: RedisQueue, queue_server_url: str, sent: Callable[[], list[str]]
) -> None:
    assert wakeups.wake(app, queue, queue.model) == 2
    client = redis.Redis.from_url(queue_server_url)
    client.client_kill_filter(_type="normal", skipme=True)
    client.delete(wakeups.PREFIX + wakeups.queue_name(queue.model))
    client.close()
    assert wakeups.wake(app, queue, queue.model) == 2
    assert len(sent()) == 2


def test_the_queue_out_of_reach(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    gone = RedisQueue("redis://127.0.0.1:1", "m")
    assert wakeups.wake(app, gone, "m") == 0
    assert "PROMPTMILL_REDIS_URL" in caplog.text
    gone.close()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("unix:///run/a b/r.sock", "redis+socket:///run/a%20b/r.sock?virtual_host=0"),
        ("unix://:pw@/run/r.sock?db=3", "redis+socket://:pw@/run/r.sock?virtual_host=3"),
        ("redis://:pw@host:6380/2", "redis://:pw@host:6380/2"),
        ("rediss://host/0", "rediss://host/0"),
    ],
)
def test_broker_url(given: str, expected: str) -> None:
    assert wakeups.broker_url(given) == expected
