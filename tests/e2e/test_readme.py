"""The README's shell lines run as they stand there, on a farm of their own; and so does what
`make demo` runs, on fewer prompts."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from tests.servers import free_port, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = [
    text for kind, text in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S) if not kind
]


def block(word: str) -> str:
    """The one block of shell lines with this word."""
    [found] = [block for block in BLOCKS if word in block]
    return str(found)


class Shell:
    """A shell that finds `promptmill`, in a folder of its own; what it left running ends
    with it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "shell.log"
        self._started: list[subprocess.Popen[bytes]] = []

    def run(self, lines: str, *, seconds: float) -> tuple[int, str]:
        """Exit status of the first line that fails, or 0, and what all of them said."""
        commands = lines.replace("http://127.0.0.1:8000", self.url)
        own = {"PROMPTMILL_PORT": str(self.port), "PROMPTMILL_URL": self.url}
        own["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", commands],
                cwd=self.folder,
                env=os.environ | own,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            self._started.append(process)
            return process.wait(seconds), self.log.read_text()

    def stop(self) -> None:
        for process in self._started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._started:
            wait_until(lambda p=process: not group(p.pid), seconds=60, what="all of it ended")


def group(number: int) -> bool:
    """A process of this group is there."""
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path)
    yield made
    made.stop()


def test_its_shell_lines_run_as_they_stand(shell: Shell) -> None:
    status, said = shell.run(block("my.csv"), seconds=180)
    assert status == 0, said
    assert "2 ok" in said
    lines = (shell.folder / "my-images" / "metadata.jsonl").read_text().splitlines()
    described = [json.loads(line) for line in lines]
    assert [(row["prompt"], row["seed"]) for row in described] == [
        ("red heart", 1),
        ("a grinning face", 2),
    ]
    for row in described:
        with Image.open(shell.folder / "my-images" / row["file_name"]) as picture:
            assert picture.size == (64, 64)
            assert len(picture.convert("RGB").getcolors(4096) or ()) > 50  # a drawing
    assert (shell.folder / "my-images" / "failures.jsonl").read_text() == ""

    (shell.folder / "prompts.jsonl").write_text('{"prompt": "a cat"}\n{"prompt": "a dog"}\n')
    status, said = shell.run(block("curl -T"), seconds=60)
    assert status == 0, said
    [job] = re.findall(r'"id":\s*"(job_\w+)"', said)
    status, said = shell.run(f"promptmill watch {job}", seconds=60)
    assert status == 0, said
    status, said = shell.run(block("first.tar").replace("/JOB/", f"/{job}/"), seconds=60)
    assert status == 0, said
    assert re.search(r"^x-last-index: 1\b", said, re.M | re.I), said
    with tarfile.open(shell.folder / "first.tar") as archive:
        assert len([name for name in archive.getnames() if name.endswith(".png")]) == 2


def test_the_demo_renders_downloads_and_verifies(tmp_path: Path) -> None:
    prompts = ROOT / "examples" / "prompts.jsonl"
    with prompts.open() as file:
        (tmp_path / "prompts.jsonl").write_text("".join(itertools.islice(file, 0, None, 20)))
    command = [sys.executable, "-m", "examples.demo", "--out", str(tmp_path / "out")]
    ran = subprocess.run(
        [*command, "--prompts", str(tmp_path / "prompts.jsonl")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    count = summary["images"]
    assert count == summary["done"] == summary["downloaded"] > 50
    assert summary["verified"] == {"ok": 16}
    assert len(list((tmp_path / "out" / "images").glob("*.png"))) == count
    with Image.open(tmp_path / "out" / "contact-sheet.png") as sheet:
        assert min(sheet.size) > 400
