"""The sheet of the model card is what a farm draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from examples import fifty
from tests.e2e.conftest import Stack
from tests.servers import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

SHIPPED = Path(__file__).parents[2] / "docs" / "models" / "emoji-gan-fifty.png"


def test_the_fifty_common_things_are_drawn_by_a_farm_as_in_the_card(
    embedded: Stack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    farm = embedded.make(model="emoji-gan", OMP_NUM_THREADS="1").start(workers=1)
    wait_until(lambda: farm.serving() == 1, seconds=300, what="the worker serves")
    monkeypatch.setenv("PROMPTMILL_URL", str(farm.http.base_url))
    fifty.main(["--out", str(tmp_path / "fifty.png")])
    assert "all 50 are done" in capsys.readouterr().out
    apart = np.abs(pixels(tmp_path / "fifty.png") - pixels(SHIPPED))
    assert apart.mean() < 1  # the bytes differ between processors


def pixels(file: Path) -> NDArray[np.int16]:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"), np.int16)
