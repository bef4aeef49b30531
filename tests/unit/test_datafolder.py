"""The data folder of an embedded farm: who has it, and what commands say where it is none."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from promptmill import cli, datafolder, errors, settings
from tests.unit.client_stub import serving

URL = "http://127.0.0.1:8000"


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is no farm's, as the current one."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def test_a_folder_tells_who_will_answer_where(tmp_path: Path) -> None:
    assert not datafolder.is_starting(tmp_path, URL)
    lock = datafolder.take(tmp_path)
    assert datafolder.is_starting(tmp_path, URL)
    with pytest.raises(errors.Conflict, match=rf"process {os.getpid()}\).*--data"):
        datafolder.take(tmp_path)
    datafolder.sign(lock, "http://127.0.0.1:9000")
    assert not datafolder.is_starting(tmp_path, URL)
    assert datafolder.is_starting(tmp_path, "http://localhost:9000")
    datafolder.leave(lock)
    assert not datafolder.is_starting(tmp_path, URL)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / datafolder.LOCK).write_text(f"process {gone.pid}")
    assert not datafolder.is_starting(tmp_path, URL)


def test_a_folder_that_cannot_be_written_names_option_and_setting(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    for folder in (blocked, blocked / "data", Path("/dev/null/nope")):
        with pytest.raises(errors.SettingInvalid, match=r"--data or PROMPTMILL_DATA_DIR"):
            datafolder.take(folder)


def test_up_says_it_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert cli.run(["up", "--data", str(blocked), "--port", "0"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("promptmill: ") and "--data or PROMPTMILL_DATA_DIR" in line


@pytest.mark.parametrize("command", [("keys", "list"), ("drain",), ("worker",), ("control",)])
def test_commands_elsewhere_name_the_data_folder(
    nowhere: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    assert cli.run(command) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert f"no farm has its data in {nowhere / 'promptmill-data'}" in line
    assert datafolder.ELSEWHERE in line and "sqlite+" not in line
    assert not list(nowhere.iterdir())


def test_a_named_database_is_not_looked_for_in_the_folder(nowhere: Path) -> None:
    assert datafolder.holds_farm(settings.read({"PROMPTMILL_DATABASE_URL": "sqlite:////x"}))
    assert not datafolder.holds_farm(settings.read({}))


def test_doctor_elsewhere_names_the_data_folder_and_makes_nothing(
    nowhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("promptmill.cli.doctor._ready", lambda farm: _well())
    assert cli.run(["doctor"]) == 1
    told = capsys.readouterr().out
    assert "FAIL  workers: the farm that answers has its data elsewhere" in told
    assert f"→ {datafolder.ELSEWHERE}" in told
    assert not list(nowhere.iterdir())


def _well() -> object:
    from promptmill.cli.doctor import Finding

    return Finding("api", True, "it is ready")


def test_a_command_waits_for_the_farm_that_up_is_starting(
    nowhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setenv("PROMPTMILL_URL", f"http://127.0.0.1:{port}")
    lock = datafolder.take(nowhere / "promptmill-data")
    answering, over = threading.Event(), threading.Event()

    def late() -> None:
        time.sleep(2.5)  # longer than a farm that nobody starts is given
        with serving(port=port) as stub:
            stub.add(["a cat"])
            answering.set()
            over.wait(30)

    thread = threading.Thread(target=late)
    thread.start()
    try:
        assert cli.run(["show", "job_1"]) == 0
        assert answering.is_set()
        waiting = f"waiting for `promptmill up` to answer at http://127.0.0.1:{port}\n"
        assert capsys.readouterr().err == waiting
    finally:
        over.set()
        thread.join()
        datafolder.leave(lock)


def test_a_farm_that_nobody_starts_is_told_soon(
    nowhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTMILL_URL", "http://127.0.0.1:9")
    started = time.monotonic()
    assert cli.run(["jobs"]) == 1
    assert time.monotonic() - started < 6
    assert "no farm answers at http://127.0.0.1:9" in capsys.readouterr().err
