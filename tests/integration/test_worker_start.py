"""A worker that cannot start says why in one line and exits with 1."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from promptmill.cli import run
from promptmill.store.database import Database
from worker.gan import encoder, integers
from worker.generators import gan

pytestmark = pytest.mark.servers


def test_damaged_weights(
    tmp_path: Path,
    valkey_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(gan.WEIGHTS, weights)
    file = weights / encoder.FILE
    file.write_bytes(file.read_bytes()[:-1000])
    monkeypatch.setattr(gan, "WEIGHTS", weights)
    monkeypatch.setenv("PROMPTMILL_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PROMPTMILL_REDIS_URL", valkey_url)
    db = Database(f"sqlite:///{tmp_path / 'promptmill.db'}")
    db.migrate()
    db.close()
    assert run(["worker"]) == 1
    said = capfd.readouterr()
    *before, line = (said.out + said.err).splitlines()
    assert len(before) <= (not integers.supported())  # which a warning tells of
    assert line.startswith(f"promptmill: PROMPTMILL_MODEL=emoji-gan: {file} is damaged")
    assert "reinstall promptmill" in line
