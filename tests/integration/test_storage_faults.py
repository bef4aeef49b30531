"""A process whose object store is wrong ends at its start: one line that names the setting
and the remedy, exit 1, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import Bucket, free_port

pytestmark = pytest.mark.servers


def run(command: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "promptmill", command],
        env={
            **os.environ,
            "PROMPTMILL_DATA_DIR": str(folder),
            "PROMPTMILL_MODEL": "stub",
            "PROMPTMILL_PORT": str(free_port()),
            **env,
        },
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Path:
    """A data folder with a database at the current schema."""
    made = tmp_path_factory.mktemp("data")
    assert run("migrate", made, PROMPTMILL_REDIS_URL=valkey_url).returncode == 0
    return made


@pytest.mark.parametrize(
    ("command", "change", "words"),
    [
        ("api", {"PROMPTMILL_STORAGE_URL": "s3://not-there"}, ["not-there is not at", "create it"]),
        ("worker", {"PROMPTMILL_STORAGE_URL": "s3://not-there"}, ["not-there", "create it"]),
        (
            "worker",
            {"AWS_SECRET_ACCESS_KEY": "wrong"},
            ["forbids access to bucket", "AWS_ACCESS_KEY_ID"],
        ),
        (
            "worker",
            {"PROMPTMILL_S3_ENDPOINT_URL": "http://127.0.0.1:1"},
            ["no answer from http://127.0.0.1:1", "PROMPTMILL_S3_ENDPOINT_URL"],
        ),
        (
            "worker",
            {"PROMPTMILL_STORAGE_URL": "file:///dev/null/x"},
            ["cannot store objects in /dev/null/x"],
        ),
    ],
    ids=["missing-api", "missing", "forbidden", "unreachable", "no-folder"],
)
def test_one_line_and_exit_1(
    command: str,
    change: dict[str, str],
    words: list[str],
    folder: Path,
    s3: Bucket,
    valkey_url: str,
) -> None:
    ended = run(command, folder, PROMPTMILL_REDIS_URL=valkey_url, **{**s3.env(), **change})
    assert ended.returncode == 1
    [line] = [line for line in ended.stderr.splitlines() if line]
    assert "PROMPTMILL_STORAGE_URL" in line
    assert [word for word in words if word not in line] == []
    assert "Traceback" not in ended.stderr + ended.stdout
