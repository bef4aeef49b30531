"""The control process itself: one leads, a standby takes over, SIGTERM ends it, a duty that
fails stops no other, and a death at any awkward place is made good."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from promptmill import errors
from promptmill.jobs import JobState
from promptmill.settings import Settings
from promptmill.store import control as control_store
from promptmill.store.database import Database
from tests.integration.control_bench import Bench, bench
from worker.control.app import Farm
from worker.control.health import STALLED, Health
from worker.control.loop import Duty, Line

pytestmark = pytest.mark.servers
MAIN = (
    "from promptmill.settings import read; from worker.control.app import run;"
    "raise SystemExit(run(read()))"
)


@pytest.fixture
def farm(database_url: str, valkey_url: str, tmp_path: Path) -> Iterator[Bench]:
    with bench(database_url, valkey_url, tmp_path) as made:
        yield made


class Process:
    """A control process of a farm; its health file says how it is."""

    def __init__(self, farm: Bench, **options: str) -> None:
        given = {
            "PROMPTMILL_DATA_DIR": str(farm.settings.data_dir),
            "PROMPTMILL_DATABASE_URL": farm.settings.database_url,
            "PROMPTMILL_REDIS_URL": farm.settings.redis_url,
            "PROMPTMILL_LEASE_SECONDS": "1",
            **options,
        }
        self.log = farm.settings.data_dir / f"control-{time.monotonic_ns()}.log"
        with self.log.open("w") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-c", MAIN], env=os.environ | given, stderr=log
            )
        self._health = farm.settings.data_dir / "health" / f"control-{self.popen.pid}.json"

    def health(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self._health.read_text())
        except FileNotFoundError:
            return {}
        return found

    def leads(self) -> bool:
        return bool(self.health().get("leader"))

    def end(self, number: signal.Signals) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(10)


@contextmanager
def controls(farm: Bench, count: int, **options: str) -> Iterator[list[Process]]:
    with ExitStack() as stack:
        started = [Process(farm, **options) for _ in range(count)]
        for process in started:
            stack.callback(process.popen.wait, 10)
            stack.callback(process.popen.kill)
        yield started


def soon(what: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not what():
        assert time.monotonic() < deadline, what
        pause.wait(0.05)


def test_one_leads_and_the_other_takes_over(farm: Bench) -> None:
    with controls(farm, 2) as (one, two):
        soon(lambda: one.health() and two.health())
        soon(lambda: one.leads() or two.leads())
        leader, standby = (one, two) if one.leads() else (two, one)
        time.sleep(1.5)
        assert leader.leads()
        assert not standby.leads()
        leader.end(signal.SIGKILL)
        killed = time.monotonic()
        soon(standby.leads, 10)
        assert time.monotonic() - killed < 6
        job = farm.submit(4, enqueue=False)
        soon(lambda: farm.queue.depth()["queued"] == 4)
        assert farm.work_off("w") == 4
        soon(lambda: farm.job(job).state is JobState.COMPLETED)
        soon(lambda: standby.health()["counts"]["repairs"] == 1)
        begun = time.monotonic()
        assert standby.end(signal.SIGTERM) == 0
        assert time.monotonic() - begun < 5
        assert standby.health() == {}, "it takes its health file along"
        assert "Traceback" not in standby.log.read_text()


def test_a_whole_outage_of_redis_is_survived(farm: Bench) -> None:
    job = farm.submit(30, lanes=2)
    with controls(farm, 1) as (process,):
        soon(process.leads)
        client = redis.Redis.from_url(farm.settings.redis)
        client.flushall()
        client.close()
        soon(lambda: farm.queue.epoch() is not None)
        assert farm.work_off("w") == 60
        soon(lambda: farm.job(job).state is JobState.COMPLETED)
        soon(lambda: process.health()["counts"]["rebuilt"] >= 1)
        assert process.health()["counts"]["repairs"] == 0


def test_an_enqueue_that_was_lost_is_made_good(farm: Bench) -> None:
    farm.submit(12, enqueue=False)
    with controls(farm, 1) as (process,):
        soon(lambda: farm.work_off("w") == 12, 60)
        soon(lambda: process.health()["counts"]["repairs"] == 1)


@pytest.mark.parametrize("site", ["reaper.recorded", "rebuild.filling", "finaliser.ended"])
def test_a_death_at_an_awkward_place_is_made_good(
    site: str, valkey_url: str, tmp_path: Path
) -> None:
    with bench(f"sqlite:///{tmp_path / 'a.db'}", valkey_url, tmp_path) as farm:
        _die_and_recover(farm, site)


def _die_and_recover(farm: Bench, site: str) -> None:
    first, second = farm.submit(1), farm.submit(6)
    dead = farm.lease("dead", 1, ttl=0.2)
    assert dead is not None
    farm.queue.beat("dead", {dead.id: True}, ttl=0.2)
    if site == "rebuild.filling":
        client = redis.Redis.from_url(farm.settings.redis)
        client.flushall()
        client.close()
    if site == "finaliser.ended":
        lease = farm.lease("w", 16)
        assert lease is not None
        farm.commit(farm.works(lease))
        farm.queue.ack(lease.id)
    with controls(farm, 1, PROMPTMILL_FAILPOINTS=f"{site}=exit") as (process,):
        assert process.popen.wait(20) == -signal.SIGKILL
    with controls(farm, 1) as (process,):
        deadline = time.monotonic() + 20
        while {farm.job(first).state, farm.job(second).state} != {JobState.COMPLETED}:
            assert time.monotonic() < deadline
            if farm.queue.epoch() is not None:
                farm.work_off("w")
            time.sleep(0.05)
        soon(lambda: farm.queue.lane_ids() == [], 15)
        assert process.health()["counts"]["repairs"] == 0
    span = dead.spans[0]
    assert control_store.charged(farm.db, span.lane, span.start, "crash") <= 1
    assert farm.job(first).counts.failed == farm.job(second).counts.failed == 0


def test_what_is_out_of_reach_is_named_in_one_line(tmp_path: Path, valkey_url: str) -> None:
    database = f"sqlite:///{tmp_path / 'a.db'}"
    Database(database).migrate()
    for settings, named in (
        (Settings(data_dir=tmp_path, database_url=database), "PROMPTMILL_REDIS_URL"),
        (
            Settings(
                data_dir=tmp_path,
                redis_url=valkey_url,
                database_url=database,
                webhook_secret="whsec_*",
            ),
            "PROMPTMILL_WEBHOOK_SECRET",
        ),
        (
            Settings(
                data_dir=tmp_path,
                redis_url=valkey_url,
                database_url=f"sqlite:///{tmp_path / 'empty.db'}",
            ),
            "promptmill migrate",
        ),
    ):
        with pytest.raises(errors.Error) as caught:
            Farm.open(settings)
        assert named in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_duty_that_fails_stops_no_other() -> None:
    stop, twice = threading.Event(), threading.Event()
    rounds: list[str] = []

    def works() -> None:
        rounds.append("works")
        if len(rounds) >= 3:
            twice.set()

    def breaks() -> None:
        raise ZeroDivisionError("secret prompt")

    def unreachable() -> None:
        raise errors.RedisDown

    line = Line(
        "test",
        stop,
        [Duty("breaks", 0.01, breaks), Duty("down", 0.01, unreachable), Duty("works", 0.01, works)],
    )
    line.start()
    assert twice.wait(5)
    stop.set()
    line.join(5)
    assert line.records["works"].failures == 0
    assert line.records["works"].succeeded_at is not None
    for name in ("breaks", "down"):
        assert line.records[name].failures >= 2
        assert line.records[name].succeeded_at is None
    assert line.records["breaks"].error == "ZeroDivisionError"
    assert "REDIS_URL" in (line.records["down"].error or "")


def test_a_slow_duty_rests_in_proportion() -> None:
    stop = threading.Event()
    starts: list[float] = []

    def slow() -> None:
        starts.append(time.monotonic())
        time.sleep(0.05)
        if len(starts) == 3:
            stop.set()

    line = Line("test", stop, [Duty("slow", 0.0, slow, rest=4.0)])
    line.start()
    line.join(5)
    assert len(starts) == 3
    assert starts[2] - starts[0] >= 2 * 0.25


def test_health_that_cannot_be_written_ends_nobody(tmp_path: Path) -> None:
    health = Health(tmp_path)
    folder = health.path.parent
    folder.rmdir()
    folder.write_bytes(b"")
    health.write(leader=True, lines=[], counts={})
    folder.unlink()
    folder.mkdir()
    health.write(leader=True, lines=[], counts={})
    assert list(folder.iterdir()) == [health.path]


def test_health_stands_still_while_a_watched_line_hangs(tmp_path: Path) -> None:
    health = Health(tmp_path)
    stop = threading.Event()
    fine, hung = Line("fine", stop), Line("hung", stop)
    hung.beat_at -= STALLED + 1
    health.write(leader=True, lines=[fine, hung], counts={})
    assert not health.path.exists()
    hung.watched = False
    health.write(leader=True, lines=[fine, hung], counts={"repairs": 2})
    written = json.loads(health.path.read_text())
    assert written["leader"] is True
    assert written["counts"] == {"repairs": 2}
    assert list(health.path.parent.iterdir()) == [health.path]
    health.remove()
    assert list(health.path.parent.iterdir()) == []
