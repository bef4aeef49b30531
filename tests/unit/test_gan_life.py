"""The whole life of a model, small: a training set drawn by code, regression, the critic, the
student, int8, and pictures from the farm's own generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from worker import tiny
from worker.gan import quantize
from worker.generators import gan


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("life")
    return out, tiny.live(out)


def test_a_shape_of_each_vendor_is_another_drawing() -> None:
    plain, rimmed, pale = (tiny.drawn("circle", (220, 40, 40), vendor) for vendor in range(3))
    assert plain[:, 32, 32].tolist() == [220, 40, 40] and plain[:, 0, 0].tolist() == [255] * 3
    assert rimmed[:, 32, 11].tolist() == [40, 40, 40] and pale[:, 32, 32].tolist() == [240] * 3


@pytest.mark.skipif(not quantize.supported(), reason="the teacher teaches in int8")
def test_both_networks_learn_what_they_are_asked(life: tuple[Path, dict[str, float]]) -> None:
    told = life[1]
    for network in ("teacher", "student"):
        assert told[f"{network}_psnr"] > 15, told
        assert told[f"{network}_found_noto"] >= 0.75, told  # chance: a twelfth


@pytest.mark.skipif(not quantize.supported(), reason="the teacher teaches in int8")
@pytest.mark.parametrize("form", gan.EmojiGan.caps.quantizations)
def test_every_form_renders_the_colour_asked_for(
    life: tuple[Path, dict[str, float]], form: str
) -> None:
    prompts = [f"{colour} square, noto style" for colour in tiny.COLOURS]
    made = tiny.render(life[0] / "weights", form, prompts)
    middle = made[:, 28:36, 28:36].mean((1, 2))
    assert middle.argmax(1).tolist() == [0, 1, 2]
    assert (made[:, :3, :3] > 200).all() and np.ptp(middle, axis=1).min() > 60
