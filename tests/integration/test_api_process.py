"""The API as a process: it starts, drains and ends as a process should."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import httpx
import pytest

from tests.integration.api_farm import ApiFarm
from tests.servers import free_port, wait_until

pytestmark = pytest.mark.servers


class Process:
    """`promptmill api` over the data of a farm."""

    running: ClassVar[list[Process]] = []

    def __init__(self, farm: ApiFarm, **env: str) -> None:
        self.port = free_port()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)
        settings = {
            "PROMPTMILL_DATA_DIR": str(farm.folder),
            "PROMPTMILL_REDIS_URL": farm.settings.redis_url,
            "PROMPTMILL_MODEL": farm.model,
            "PROMPTMILL_PORT": str(self.port),
        }
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "promptmill", "api"],
            env={**os.environ, **settings, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.running.append(self)

    def answers(self) -> bool:
        try:
            return self.http.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def end(self) -> str:
        """Its output, once it has ended; killed if it does not."""
        self.http.close()
        try:
            return self.popen.communicate(timeout=15)[0]
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.communicate()
            raise


@pytest.fixture
def farm(tmp_path: Path, valkey_url: str) -> Iterator[ApiFarm]:
    made = ApiFarm(tmp_path, valkey_url)
    yield made
    for process in Process.running:
        if process.popen.poll() is None:
            process.popen.kill()
            process.popen.communicate()
    Process.running.clear()
    made.queue.close()
    made.blobs.close()
    made.db.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_drains_uploads_and_streams_and_exits_with_0(farm: ApiFarm, number: int) -> None:
    process = Process(farm)
    wait_until(process.answers, seconds=20, what="the API answers")
    ndjson = {"content-type": "application/x-ndjson"}
    id = process.http.post("/v1/jobs", content=b'{"prompt":"a"}\n', headers=ndjson).json()["id"]
    told = threading.Event()
    answers: list[int] = []

    def slowly() -> Iterator[bytes]:
        yield b'{"prompt":"one"}\n'
        told.wait(10)
        time.sleep(0.5)
        yield b'{"prompt":"two"}\n'

    def upload() -> None:
        with httpx.Client(base_url=str(process.http.base_url), timeout=20) as client:
            answers.append(client.post("/v1/jobs", content=slowly(), headers=ndjson).status_code)

    thread = threading.Thread(target=upload)
    thread.start()
    with process.http.stream("GET", f"/v1/jobs/{id}/events") as stream:
        lines = stream.iter_lines()
        next(lines)
        time.sleep(0.3)
        process.popen.send_signal(number)
        told.set()
        assert any(line == "event: state" for line in list(lines))  # and then it ends
    thread.join(15)
    output = process.end()
    assert answers == [202]
    assert process.popen.returncode == 0, output
    assert "Traceback" not in output


def test_a_wrong_start_is_one_line(farm: ApiFarm, tmp_path: Path) -> None:
    wrong = {
        "PROMPTMILL_REDIS_URL": f"unix://{tmp_path}/nobody.sock",
        "PROMPTMILL_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "PROMPTMILL_STORAGE_URL": "file:///proc/nowhere",
        "PROMPTMILL_LOG_LEVEL": "LOUD",
    }
    for name, value in wrong.items():
        process = Process(farm, **{name: value})
        output = process.end()
        assert process.popen.returncode == 1, output
        [line] = output.strip().splitlines()
        assert name in line


def test_it_logs_no_prompt(farm: ApiFarm) -> None:
    process = Process(farm, PROMPTMILL_LOG_LEVEL="DEBUG")
    wait_until(process.answers, seconds=20, what="the API answers")
    rows = b'{"prompt":"the secret heart"}\n{"prompt":"another secret", "size":"1x1"}\n'
    headers = {"content-type": "application/x-ndjson"}
    assert process.http.post("/v1/jobs", content=rows, headers=headers).status_code == 400
    good = process.http.post("/v1/jobs", content=rows.splitlines()[0], headers=headers)
    assert good.status_code == 202
    process.http.get("/v1/jobs/secret%20prompt")
    process.popen.terminate()
    assert "secret" not in process.end()
