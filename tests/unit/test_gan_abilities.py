"""The repair: holes filled and nothing else. The style: the same thing in another hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from promptmill.jobs import Item
from worker.gan import inputs, repair
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
    shades = iter(((10, 30), (120, 60), (210, 40)))  # with a spot inside the hole

    def render(given: np.ndarray) -> np.ndarray:
        assert (given[:, -NOISE:] == 0).all()
        shade, spot = next(shades)
        drawn = np.full((1, 64, 64, 3), shade, dtype=np.uint8)
        drawn[:, 30, 40] += spot
        return drawn

    source = hole(np.full((64, 64, 3), 118, dtype=np.uint8))
    made = repair.fill(render, conditions, [source])
    assert (made[0, 30, 40] == 118 + 60).all(), "another style's spot"
    assert (made[0, 20:30] == 118).all() and (made[0, 0] == 118).all()
    with pytest.raises(ValueError, match="needs a mask"):
        repair.fill(lambda _: np.zeros((1, 64, 64, 3), dtype=np.uint8), conditions,
                    [Input(source.pixels)])  # fmt: skip


@pytest.mark.parametrize("corner", [(20, 9), (0, 0), (32, 16)])
def test_a_repair_makes_up_for_what_differs_around_the_hole(corner: tuple[int, int]) -> None:
    """What was drawn too dark, and darker from left to right, comes out as the picture was."""
    chance = np.random.default_rng(0)
    picture = chance.integers(90, 180, (64, 64, 3)).astype(np.uint8)
    dark = np.linspace(20, 60, 64)[None, :, None] * np.array([1.0, 0.5, 0.25])
    drawing = np.rint(picture - dark).astype(np.uint8)
    hole = np.zeros((64, 64), dtype=np.uint8)
    hole[corner[0] : corner[0] + 32, corner[1] : corner[1] + 40] = 255
    (made,) = repair.fill(
        lambda conditions: np.stack([drawing] * len(conditions)),
        np.zeros((1, 416), dtype=np.float32),
        [Input(np.where(hole[..., None] > 0, 0, picture).astype(np.uint8), hole)],
    )
    off = np.abs(made.astype(int) - picture)
    assert off[hole == 0].max() == 0
    assert off[hole > 0].mean() < 6
    assert np.abs(drawing.astype(int) - picture)[hole > 0].mean() > 15


def test_a_hole_without_a_rim_is_the_drawing() -> None:
    drawing = np.random.default_rng(1).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    (made,) = repair.fill(
        lambda conditions: np.stack([drawing] * len(conditions)),
        np.zeros((1, 416), dtype=np.float32),
        [Input(np.zeros_like(drawing), np.full((64, 64), 255, dtype=np.uint8))],
    )
    assert (made == drawing).all()


def test_a_style_draws_what_the_source_shows(model: gan.EmojiGan) -> None:
    """The source and the cue decide; the seed's shift and tint are those of the item."""
    drawn = model.generate([item(f"{name}, noto style", seed=11) for name in NAMES])
    asked = [item("fluent style", "style") for _ in NAMES]
    made = model.generate(asked, [Input(picture) for picture in drawn])
    named = model.generate([item(f"{name}, fluent style") for name in NAMES])
    gap = np.abs(made.astype(float) - named).mean((1, 2, 3))
    other = np.abs(made.astype(float) - np.roll(named, 1, axis=0)).mean((1, 2, 3))
    assert (gap < other / 5).sum() >= len(NAMES) - 1
    alone = [model.generate(asked[:1], [Input(picture)])[0] for picture in drawn]
    assert np.array_equal(made, np.stack(alone))
    words = model.generate([item("a rocket in fluent style", "style")], [Input(drawn[0])])
    assert np.array_equal(words[0], made[0])
    other = model.generate([item("twemoji style", "style")], [Input(drawn[0])])
    assert not np.array_equal(other[0], made[0])


def test_what_is_drawn_anew_has_more_of_its_style() -> None:
    text, noise = np.ones((2, 384), dtype=np.float32), np.ones((2, 16), dtype=np.float32)
    given = inputs.condition(text, np.array([0, 2]), noise)
    made = inputs.emphatic(given)
    code = slice(inputs.TEXT, inputs.TEXT + inputs.VENDOR_CODE)
    assert np.array_equal(made[:, code], inputs.vendor_code(np.array([0, 2])) * inputs.EMPHASIS)
    made[:, code] = given[:, code]
    assert np.array_equal(made, given)


def test_a_style_is_scored_by_what_it_shows(model: gan.EmojiGan) -> None:
    drawn = model.generate([item(name) for name in NAMES])
    asked = [item("twemoji style", "style") for _ in NAMES]
    made = model.generate(asked, [Input(picture) for picture in drawn])
    scores = model.score(asked, made)
    assert sorted(scores)[len(scores) // 2] > 0.8
