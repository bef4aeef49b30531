"""`promptmill up` with real processes: it renders, repairs itself, dies whole, comes back,
and says in one line why it does not start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from promptmill import cli, errors, local
from promptmill.client import Client, Job
from tests.servers import free_port, wait_until

pytestmark = pytest.mark.timeout(240)


def lives(pid: int) -> bool:
    """Runs, and is no zombie."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@dataclass
class Up:
    """A `promptmill up` with the stub generator, its output in a file."""

    data: Path
    port: int

    def __post_init__(self) -> None:
        self.log = self.data.with_suffix(".log")
        self.begin()

    def begin(self) -> None:
        command = [sys.executable, "-m", "promptmill", "up", "--model", "stub"]
        environ = os.environ | {"PROMPTMILL_LEASE_SECONDS": "3"}
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [*command, "--data", str(self.data), "--port", str(self.port)],
                stdout=out,
                stderr=out,
                env=environ,
            )
        wait_until(lambda: "is up" in self.said() or self.ended(), seconds=120, what="it is up")
        assert not self.ended(), self.said()

    def said(self) -> str:
        return self.log.read_text()

    def ended(self) -> bool:
        return self.process.poll() is not None

    def children(self) -> dict[str, int]:
        """Process ids of its direct children, by what they run."""
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            with suppress(OSError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                words = (folder / "cmdline").read_bytes().decode().split("\0")
                if parent == self.process.pid:
                    last = words[-2] if "promptmill" in words else "valkey"
                    found[last] = int(folder.name)
        return found

    def stop(self) -> None:
        if not self.ended():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    made = Up(tmp_path_factory.mktemp("up") / "data", free_port())
    yield made
    made.stop()


@pytest.fixture
def client(up: Up) -> Iterator[Client]:
    with Client(f"http://127.0.0.1:{up.port}") as made:
        yield made


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def thousand(client: Client, *, steps: int = 50) -> Job:
    """A job of some seconds."""
    return client.submit([f"thing {number}" for number in range(1000)], steps=steps)


def test_it_renders_and_brings_the_images_home(client: Client, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "a cat", "n": 2, "id": "c"},
        {"prompt": "!raise"},
        {"prompt": "a dog"},
    ]
    job = client.submit(rows, name="first").wait(timeout=60)
    assert (job.state, job.counts.done, job.counts.failed) == ("completed", 3, 1)
    result = job.download(tmp_path)
    assert (result.present, result.failed) == (3, 1)
    lines = read_lines(tmp_path / "metadata.jsonl")
    assert [(line["index"], line["custom_id"]) for line in lines] == [(0, "c"), (1, "c"), (3, None)]
    [failure] = read_lines(tmp_path / "failures.jsonl")
    assert failure["_error"]["code"] == "render_failed"
    (tmp_path / "failures.jsonl").write_text(json.dumps(failure | {"prompt": "mended"}) + "\n")
    again = client.submit(tmp_path / "failures.jsonl").wait(timeout=60)
    assert again.succeeded and again.image(0).data["seed"] == failure["seed"]


def test_verify_names_the_damaged_image_and_repairs_it(client: Client, up: Up) -> None:
    job = client.submit([f"thing {number}" for number in range(5)]).wait(timeout=60)
    assert job.verify().statuses == {"ok": 5}
    [stored] = [
        p for p in (up.data / "objects" / "jobs" / job.id).rglob("*000000003*") if p.is_file()
    ]
    data = bytearray(stored.read_bytes())
    data[100] ^= 1
    stored.chmod(0o644)
    stored.write_bytes(data)
    report = job.verify()
    assert [(fault["row"], fault["status"]) for fault in report.faults] == [(3, "damaged")]
    assert not report.ok
    report = job.verify(repair=True)
    assert report.ok and report.repaired == (3,)
    assert job.verify().statuses == {"ok": 5}
    assert len(job.content(3)) == len(data)


def test_doctor_finds_nothing_and_drain_is_answered(
    up: Up, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTMILL_DATA_DIR", str(up.data))
    monkeypatch.setenv("PROMPTMILL_PORT", str(up.port))
    monkeypatch.setenv("PROMPTMILL_MODEL", "stub")
    assert cli.run(["doctor"]) == 0, capsys.readouterr().out
    for service in ("api", "worker", "control"):
        assert cli.run(["doctor", "--check", service]) == 0
    monkeypatch.setenv("PROMPTMILL_URL", "http://127.0.0.1:9")
    assert cli.run(["doctor"]) == 1
    assert "http://127.0.0.1:9/readyz" in capsys.readouterr().out
    monkeypatch.delenv("PROMPTMILL_URL")
    assert cli.run(["drain"]) == 0
    assert "draining" in capsys.readouterr().out
    assert cli.run(["drain", "--resume"]) == 0
    assert cli.run(["drain", "nobody"]) == 1
    assert cli.run(["keys", "create", "alice", "--json"]) == 0
    key = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert cli.run(["keys", "list"]) == 0
    assert key["id"] in capsys.readouterr().out
    assert cli.run(["keys", "revoke", key["id"]]) == 0
    assert cli.run(["keys", "revoke", "key_0"]) == 1


def test_a_second_up_on_the_folder_is_refused(up: Up) -> None:
    with pytest.raises(errors.Conflict, match=r"in use by `promptmill up`.*--data"):
        local.Farm(up.data, port=0).start()


def test_a_port_that_is_taken_names_the_option(up: Up, tmp_path: Path) -> None:
    for args, told in (
        (("--data", str(tmp_path / "new"), "--port", str(up.port)), "give another with --port"),
        (("--data", str(up.data), "--port", "0"), "give another with --data"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "promptmill", "up", *args],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1 and told in done.stderr
        assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("promptmill: ")


def test_every_process_that_is_killed_comes_back_and_the_job_completes(
    up: Up, client: Client
) -> None:
    before = up.children()
    assert set(before) == {"valkey", "api", "control", "worker"}
    wait_until(lambda: "worker-1 is ready" in up.said(), seconds=60, what="its worker is ready")
    assert up.said().count("worker-1 is ready") == 1
    job = thousand(client)
    for name in ("valkey", "control", "worker", "api"):
        os.kill(before[name], signal.SIGKILL)
    wait_until(lambda: set(up.children()) == set(before), seconds=60, what="all are back")
    assert not set(up.children().values()) & set(before.values())
    job.wait(timeout=120)
    assert job.succeeded and job.counts.done == 1000
    assert up.said().count("worker-1 is ready") == 2


def test_up_killed_takes_all_along_and_the_next_one_recovers(up: Up, client: Client) -> None:
    job = thousand(client, steps=100)
    wait_until(lambda: job.refresh().counts.done > 0, seconds=60, what="it renders")
    children = up.children()
    up.process.kill()
    up.process.wait()
    wait_until(lambda: not any(map(lives, children.values())), seconds=10, what="all are gone")
    up.begin()
    job.wait(timeout=120)
    assert job.succeeded
    images = list(job.images())
    assert len({image.data["id"] for image in images}) == 1000


def test_a_signal_drains_and_leaves_no_process(up: Up, client: Client) -> None:
    job = thousand(client, steps=100)
    wait_until(lambda: job.refresh().counts.done > 0, seconds=60, what="it renders")
    children = up.children()
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(60) == 0
    assert not any(map(lives, children.values()))
    assert "killed" not in up.said()
    up.begin()
    assert job.wait(timeout=120).succeeded


def test_a_farm_that_cannot_start_says_why_in_one_line(tmp_path: Path) -> None:
    """Before a child that would fail over it is started, and tried again."""
    told: list[str] = []
    data = tmp_path / "data"
    farm = local.Farm(data, model="no-such-model", port=0, told=told.append)
    with pytest.raises(errors.Error, match="no-such-model"):
        farm.start()
    for name, url in (
        ("PROMPTMILL_REDIS_URL", "redis://127.0.0.1:1/0"),
        ("PROMPTMILL_STORAGE_URL", "file:///dev/null/x"),
    ):
        environ = {"PATH": os.environ["PATH"], name: url}
        with pytest.raises(errors.Unavailable, match=name):
            local.Farm(data, port=0, environ=environ, told=told.append).start()
    for name, value, why in (
        ("PROMPTMILL_QUANTIZATION", "bf16", "bf16 is refused: it is a GPU's form"),
        ("PROMPTMILL_QUANTIZATION", "none of these", "no quantization 'none of these'"),
    ):
        environ = {"PATH": os.environ["PATH"], "PROMPTMILL_DEVICE": "cpu", name: value}
        with pytest.raises(errors.Unavailable, match=why):
            local.Farm(data, port=0, environ=environ, told=told.append).start()
    llama = tmp_path / "llama"
    llama.mkdir()
    (llama / "config.json").write_text('{"model_type": "llama"}')
    (llama / "model.safetensors").touch()
    with pytest.raises(errors.Unavailable, match="is a llama"):
        local.Farm(data, port=0, model=str(llama), told=told.append).start()
    assert told == []
    assert not (data / "logs" / "api.log").exists()
    with pytest.raises(errors.SettingInvalid, match="PROMPTMILL_SLOTS"):
        local.Farm(tmp_path, environ={"PROMPTMILL_SLOTS": "many"})


def test_workers_come_and_go_in_a_farm_used_from_python(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / "data"
    with local.Farm(deep, workers=0, model="stub", port=0) as farm, Client(farm.url) as client:
        assert set(farm.pids()) == {"valkey", "api", "control"}
        farm.scale(2)
        wait_until(lambda: len(client.workers()) == 2, seconds=60, what="two serve")
        pids = farm.pids()
        farm.scale(1)
        assert set(farm.pids()) == {"valkey", "api", "control", "worker-1"}
        assert not lives(pids["worker-2"])
        assert client.submit(["a cat"]).wait(timeout=60).succeeded
        with socket.create_connection(("127.0.0.1", farm.settings.port)):
            pids = farm.pids()
    assert not any(map(lives, pids.values()))
    with local.Farm(deep, workers=0, model="stub", port=0) as farm:
        assert farm.url.startswith("http://127.0.0.1:")
