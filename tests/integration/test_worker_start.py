"""A worker that cannot start says why in one line and exits with 1, or with 2 where no other start
would go better."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from promptmill import children
from promptmill.cli import run
from promptmill.redis_queue import RedisQueue
from promptmill.store.database import Database
from worker import app
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


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("bf16", "PROMPTMILL_QUANTIZATION=bf16 is refused: it is a GPU's form"),
        ("fp8", "PROMPTMILL_MODEL=emoji-gan: emoji-gan has no quantization 'fp8'"),
    ],
)
def test_a_refused_setting(
    tmp_path: Path,
    valkey_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    value: str,
    why: str,
) -> None:
    monkeypatch.setenv("PROMPTMILL_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PROMPTMILL_REDIS_URL", valkey_url)
    monkeypatch.setenv("PROMPTMILL_QUANTIZATION", value)
    monkeypatch.setenv("PROMPTMILL_DEVICE", "cpu")
    db = Database(f"sqlite:///{tmp_path / 'promptmill.db'}")
    db.migrate()
    db.close()
    assert run(["worker"]) == children.REFUSED
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(f"promptmill: {why}")


def test_workers_that_draw_otherwise_are_told_of(
    valkey_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue = RedisQueue(valkey_url, "told-of-others")
    for worker, fingerprint in (("a", "mine"), ("b", "old"), ("c", "old")):
        queue.report(worker, {"state": "idle", "fingerprint": fingerprint}, ttl=30)
        app.tell_of_others(queue, "mine")
    queue.close()
    assert len(caplog.messages) == 2
    assert caplog.messages[-1].endswith("with other fingerprints, too: old; here with mine")
