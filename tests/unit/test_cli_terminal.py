"""What commands print on a terminal of 80 columns and into a pipe, and their words for what
went wrong."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from promptmill import cli, errors
from promptmill.cli import output
from tests.unit.client_stub import Fault, StubFarm, serving


@pytest.fixture
def farm(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubFarm]:
    with serving() as stub:
        monkeypatch.setenv("PROMPTMILL_URL", stub.url)
        yield stub


def on_terminal(farm: StubFarm, *args: str, columns: int = 80) -> list[str]:
    """The lines that a command shows on a terminal, without colours."""
    main, side = pty.openpty()
    env = {**os.environ, "PROMPTMILL_URL": farm.url, "COLUMNS": str(columns), "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-m", "promptmill", *args], stdout=side, stderr=side, env=env
    )
    os.close(side)
    shown = b""
    try:
        while part := os.read(main, 65536):
            shown += part
    except OSError:
        """The other side has closed."""
    os.close(main)
    process.wait(30)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    return [line for line in re.split(r"[\r\n]+", text) if line]


@pytest.fixture
def long_job(farm: StubFarm) -> str:
    """Everything about it is long."""
    job = farm.add(["a cat"])
    job["name"] = "a name that goes on and on " * 5
    job["model"] = "an-organisation/with-a-model-of-a-long-name"
    job["state"] = "cancelling"
    job["counts"] = {"total": 9_999_999, "queued": 0, "done": 1_234_567, "failed": 12_345}
    job["fingerprint"] = "f" * 70
    job["notice"] = "12 images wait for the lease of a worker that no longer answers, 17 s left"
    job["id"] = "job_" + "x" * 20
    farm.jobs[job["id"]] = job
    farm.images[job["id"]] = farm.images["job_1"]
    return str(job["id"])


@pytest.mark.parametrize("columns", [80, 160])
def test_lists_fit_the_terminal(farm: StubFarm, long_job: str, columns: int) -> None:
    lines = on_terminal(farm, "jobs", columns=columns)
    assert all(len(line) <= columns for line in lines), lines
    assert long_job in lines[-1] and "1,234,567/9,999,999" in lines[-1]
    assert ("model" in lines[0]) == (columns == 160)


def test_show_goes_on_below(farm: StubFarm, long_job: str) -> None:
    lines = on_terminal(farm, "show", long_job)
    assert all(len(line) <= 80 for line in lines), lines
    assert any(line.startswith("notice") for line in lines)
    assert "".join(line[-17:].strip() for line in lines).count("left") == 1


def test_images_shorten_the_prompt(farm: StubFarm) -> None:
    id = farm.add(["a very long prompt " * 20])["id"]
    lines = on_terminal(farm, "images", id)
    assert all(len(line) <= 80 for line in lines), lines
    assert "a very long" in lines[1]
    farm.images[id][0]["expanded_prompt"] = "another long text " * 20
    lines = on_terminal(farm, "images", id)
    assert all(len(line) <= 80 for line in lines), lines


def test_a_pipe_gets_everything(farm: StubFarm, capsys: pytest.CaptureFixture[str]) -> None:
    job = farm.add(["a cat"])
    job["model"] = "m" * 90
    assert cli.run(["jobs"]) == 0
    assert "m" * 90 in capsys.readouterr().out


def test_json_is_what_the_api_says(farm: StubFarm, capsys: pytest.CaptureFixture[str]) -> None:
    job = farm.add(["a cat"])
    for args in (["jobs", "--json"], ["show", job["id"], "--json"]):
        assert cli.run(args) == 0
        assert json.loads(capsys.readouterr().out) == job


def test_ages_have_one_unit() -> None:
    now = time.time()
    found = [output.age(now - past - 0.3) for past in (7, 61, 3 * 3600, 49 * 3600)]
    assert found == ["7 s", "1 min", "3 h", "2 d"]
    assert output.age(now + 60) == "0 s"


def test_a_retry_of_an_unknown_code_is_no_success(
    farm: StubFarm, capsys: pytest.CaptureFixture[str]
) -> None:
    id = farm.add(["a cat", "bad", "bad too"])["id"]
    assert cli.run(["retry", id, "--code", "nosuch"]) == 1
    err = capsys.readouterr().err
    assert "no image failed with code nosuch; failed: 2 render_failed" in err
    assert cli.run(["retry", id, "--code", "render_failed"]) == 0
    assert "2 images queued again" in capsys.readouterr().err
    whole = farm.add(["a cat"])["id"]
    assert cli.run(["retry", whole]) == 0
    assert "no image failed" in capsys.readouterr().err


def test_a_missing_column_is_told_in_options(
    farm: StubFarm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("caption\na cat\n")
    said = "the CSV has no column 'prompt'; name the column with map=prompt=COLUMN"
    body = errors.BadRow(said, line=1, param="prompt").body()
    farm.fault("POST", Fault(status=400, body=body))
    assert cli.run(["submit", str(path)]) == 1
    err = capsys.readouterr().err
    assert "with --map prompt=COLUMN" in err
    assert " map=" not in err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_learn_to_complete(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["completion", shell]) == 0
    assert "_PROMPTMILL_COMPLETE" in capsys.readouterr().out
    done = subprocess.run(
        [sys.executable, "-m", "promptmill"],
        env={
            **os.environ,
            "_PROMPTMILL_COMPLETE": "bash_complete",
            "COMP_WORDS": "promptmill verify-",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert "verify-manifest" in done.stdout
