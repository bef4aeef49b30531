"""The score and the repair: blind to neighbours, holes filled and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from promptmill import errors
from promptmill.jobs import Item
from worker.gan import repair, scorer
from worker.gan.networks import NOISE, TEXT, condition
from worker.generators import gan
from worker.generators.base import Input

NAMES = (
    "red heart",
    "flag of Japan",
    "soccer ball",
    "rocket",
    "grinning face",
    "penguin",
    "frog",
    "sun",
)


def item(prompt: str, task: str = "text2image", seed: int = 3) -> Item:
    return Item(0, 0, 0, prompt, seed, 64, 64, task=task)


@pytest.fixture(scope="module")
def model() -> gan.EmojiGan:
    made = gan.EmojiGan()
    made.load(device="cpu", quantization="int8")
    return made


def test_the_area_under_the_curve() -> None:
    assert scorer.auc(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])) == 1.0
    assert scorer.auc(torch.tensor([0.0, 2.0]), torch.tensor([1.0])) == 0.5
    assert scorer.auc(torch.tensor([1.0]), torch.tensor([1.0])) == 0.5


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = scorer.Eye().eval()
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(state, tmp_path / scorer.FILE)
    return tmp_path


def test_a_score_is_the_same_beside_any_neighbours(kept: Path) -> None:
    score = scorer.Scorer(kept)
    pictures = torch.randint(0, 256, (11, 3, 64, 64), dtype=torch.uint8)
    text = torch.nn.functional.normalize(torch.randn(11, TEXT), dim=1)
    together = score(pictures, text)
    assert len(set(together)) > 5 and all(-1 <= value <= 1 for value in together)
    assert [score(pictures[n : n + 1], text[n : n + 1])[0] for n in range(11)] == together
    assert score(pictures.flip(0), text.flip(0)) == together[::-1]


def test_a_damaged_scorer_is_named(kept: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.Error, match=r"scorer\.safetensors cannot be read"):
        scorer.Scorer(tmp_path / "nowhere")
    (kept / scorer.FILE).write_bytes((kept / scorer.FILE).read_bytes()[:-50])
    with pytest.raises(errors.Error, match=r"scorer\.safetensors is damaged"):
        scorer.Scorer(kept)


def hole(pixels: np.ndarray) -> Input:
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[16:48, 20:60] = 255
    spoilt = pixels.copy()
    spoilt[mask > 0] = (0, 255, 0)
    return Input(spoilt, mask)


def test_a_repair_fills_the_hole_and_touches_nothing_else(model: gan.EmojiGan) -> None:
    names = NAMES[:4]
    whole = model.generate([item(f"{name}, twemoji style") for name in names])
    sources = [hole(picture) for picture in whole]
    items = [item(name, "repair") for name in names]
    made = model.generate(items, sources)
    alone = [model.generate(items[n : n + 1], sources[n : n + 1])[0] for n in range(4)]
    assert np.array_equal(made, np.stack(alone))
    for picture, source, truth in zip(made, sources, whole, strict=True):
        assert source.mask is not None
        outside = source.mask == 0
        assert np.array_equal(picture[outside], source.pixels[outside])
        mean = truth[outside].mean(0)
        error = np.abs(picture[~outside].astype(float) - truth[~outside]).mean()
        assert error < np.abs(mean - truth[~outside]).mean() / 1.5


def test_a_repair_takes_the_style_that_fits() -> None:
    text = torch.nn.functional.normalize(torch.ones(1, TEXT), dim=1)
    conditions = condition(text, torch.tensor([0]), torch.randn(1, NOISE)).numpy()
    shades = iter((10, 120, 240))

    def render(given: np.ndarray) -> np.ndarray:
        assert (given[:, -NOISE:] == 0).all()
        return np.full((1, 64, 64, 3), next(shades), dtype=np.uint8)

    source = hole(np.full((64, 64, 3), 118, dtype=np.uint8))
    made = repair.fill(render, conditions, [source])
    assert (made[0, 20:40, 30:50] == 120).all() and (made[0, 0] == 118).all()
    with pytest.raises(ValueError, match="needs a mask"):
        repair.fill(lambda _: np.zeros((1, 64, 64, 3), dtype=np.uint8), conditions,
                    [Input(source.pixels)])  # fmt: skip
