"""When the tool itself cannot work it says so in one line that names the setting and the
remedy, with exit status 1 and no traceback."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from promptmill import children
from tests.e2e.conftest import Stack
from tests.e2e.farm import Farm
from tests.servers import Bucket, S3Server, free_port, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]


def one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """All that it says is one line, on standard error, with these words; a worker that a setting
    stops ends with 2, so that nobody starts it again."""
    assert done.returncode in (1, children.REFUSED), done.stdout + done.stderr
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    for word in words:
        assert word in line, line


@pytest.mark.parametrize("command", ["api", "worker", "control"])
def test_redis_out_of_reach(embedded: Stack, command: str) -> None:
    farm = embedded.make(PROMPTMILL_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    assert farm.call("migrate").returncode == 0
    if command == "worker":
        one_line(farm.call(command), "PROMPTMILL_REDIS_URL")
        return
    process = farm.run(command)  # they wait for it: their work is to answer and to repair
    wait_until(lambda: "PROMPTMILL_REDIS_URL" in said(farm, process.log), seconds=30, what="said")
    assert process.alive
    assert "Traceback" not in process.text()


def said(farm: Farm, log: Path) -> str:
    text = log.read_text(errors="replace")
    if farm.ready():
        text += farm.http.get("/readyz").text
    return text


@pytest.mark.parametrize("command", ["migrate", "api", "worker", "control"])
def test_postgres_out_of_reach(embedded: Stack, command: str) -> None:
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    farm = embedded.make(PROMPTMILL_DATABASE_URL=url)
    one_line(farm.call(command), "PROMPTMILL_DATABASE_URL")


def test_a_database_that_was_never_migrated(embedded: Stack) -> None:
    farm = embedded.make()
    one_line(farm.call("worker"), "promptmill migrate")


def test_a_bucket_that_is_missing(embedded: Stack, s3: Bucket) -> None:
    env = s3.env() | {"PROMPTMILL_STORAGE_URL": "s3://no-such-bucket-here"}
    farm = embedded.make(**env)
    assert farm.call("migrate").returncode == 0
    one_line(farm.call("worker"), "PROMPTMILL_STORAGE_URL", "no-such-bucket-here")


def test_a_bucket_that_may_only_be_read(embedded: Stack, s3: Bucket) -> None:
    env = s3.env() | {
        "AWS_ACCESS_KEY_ID": S3Server.reader_access_key,
        "AWS_SECRET_ACCESS_KEY": S3Server.reader_secret_key,
    }
    farm = embedded.make(**env)
    assert farm.call("migrate").returncode == 0
    one_line(farm.call("worker"), "PROMPTMILL_STORAGE_URL")


def test_a_model_that_nobody_knows(embedded: Stack) -> None:
    farm = embedded.make(model="nope")
    assert farm.call("migrate").returncode == 0
    one_line(farm.call("worker"), "PROMPTMILL_MODEL", "emoji-gan")


@pytest.mark.parametrize("part", ["model.safetensors", "config.json"])
def test_a_checkpoint_whose_files_are_damaged(embedded: Stack, tmp_path: Path, part: str) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "janus"}')
    (folder / "model.safetensors").write_bytes(b"")
    (folder / part).write_bytes(b"{ cut")
    farm = embedded.make(model=str(folder))
    assert farm.call("migrate").returncode == 0
    where = str(folder / part)
    one_line(farm.call("worker"), f"PROMPTMILL_MODEL={folder}", where, "fetch it again")


def test_a_setting_that_is_unknown(embedded: Stack) -> None:
    farm = embedded.make()
    farm.env["PROMPTMILL_SLOT"] = "3"
    one_line(farm.call("worker"), "PROMPTMILL_SLOT")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.fail("this test mounts a small disk: run the suite as root, or deselect it")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_refuses_what_is_new_and_loses_nothing(
    embedded: Stack, small_disk: Path
) -> None:
    farm = embedded.make(PROMPTMILL_DATA_DIR=str(small_disk / "data")).start()
    job = farm.submit([f"thing {i}" for i in range(1500)], steps="100")["id"]
    farm.wait_done(job, 32)
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    wait_until(
        lambda: "disk is full" in farm.workers[0].text(), seconds=40, what="the worker says why"
    )
    assert farm.workers[0].alive
    answer = farm.http.post(
        "/v1/jobs",
        content="x" * 50 + "\n" + "y y\n" * 40_000,
        headers={"content-type": "text/plain"},
    )
    assert answer.status_code in (503, 507), answer.text
    assert "disk" in answer.json()["error"]["message"]
    ballast.unlink()
    farm.wait(job, seconds=60)
    assert farm.check(job) == {"done": 1500}
    assert not farm.incidents()
