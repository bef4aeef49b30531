"""The Python of docs/sdk.md runs, in the order of the page, against a farm that renders."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from promptmill.store import control
from tests.integration.api_farm import ApiFarm
from tests.integration.export_kit import builder, exporting

pytestmark = pytest.mark.servers

PAGE = Path(__file__).parents[2] / "docs" / "sdk.md"


@pytest.fixture
def farm(tmp_path: Path, valkey_url: str) -> Iterator[ApiFarm]:
    """One that renders and completes jobs by itself."""
    stop = threading.Event()

    def work(served: ApiFarm) -> None:
        while not stop.wait(0.02):
            served.worker.drain()
            control.finish_ready(served.db)
            exporting(served).step()
            builder(served).step()

    with ApiFarm(tmp_path, valkey_url) as served:
        thread = threading.Thread(target=work, args=(served,))
        thread.start()
        yield served
        stop.set()
        thread.join(30)


def test_every_line_of_the_page_runs(
    farm: ApiFarm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PROMPTMILL_URL", farm.url)
    monkeypatch.chdir(tmp_path)
    for name in ("HF_HOME", "HF_DATASETS_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "from a file"}\n')
    text = PAGE.read_text()
    names: dict[str, Any] = {}
    for match in re.finditer(r"```python\n(.*?)```", text, re.S):
        line = text[: match.start()].count("\n") + 1
        source = "\n" * line + match[1]
        exec(compile(source, str(PAGE), "exec"), names)
    names["client"].close()
    printed = capsys.readouterr().out
    assert "completed" in printed
    assert "a tree" in printed
    assert "job.queued" in printed
    assert "size" in printed
    assert "a red ball (64, 64) train" in printed
    assert (tmp_path / "balls" / "data" / "train-00000.tar").stat().st_size > 1000
    assert (tmp_path / "first.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "pictures" / "images").iterdir())) == 3
