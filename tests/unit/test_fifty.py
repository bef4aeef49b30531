"""The example that lays out what the farm drew of fifty things."""

from __future__ import annotations

import io
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from examples import fifty
from promptmill import errors
from worker.gan import common


def content(index: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (4 * index, 0, 0)).save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize("done", [50, 49])
def test_all_fifty_stand_in_their_order_or_the_sheet_is_refused(
    done: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    counts = SimpleNamespace(total=50, done=done)
    job = SimpleNamespace(
        id="job_1", data={"model": "m"}, counts=counts, wait=lambda: None, content=content
    )
    farm = SimpleNamespace(submit=lambda rows, **given: asked.extend(rows) or job)
    monkeypatch.setattr(fifty, "Client", lambda: nullcontext(farm))
    sheet = tmp_path / "fifty.png"
    if done < 50:
        with pytest.raises(errors.Error, match=r"49 of 50 .*: promptmill show job_1"):
            fifty.main(["--out", str(sheet)])
        assert not sheet.exists()
        return
    fifty.main(["--out", str(sheet)])
    assert asked == [{"prompt": prompt, "seed": 0} for prompt in common.FIFTY]
    with Image.open(sheet) as made:
        assert made.size == (640, 320)
        reds = [made.convert("RGB").getpixel((64 * (n % 10), 64 * (n // 10))) for n in range(50)]
    assert reds == [(4 * n, 0, 0) for n in range(50)]
