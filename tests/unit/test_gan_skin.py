"""People in a skin tone: drawn without one, in the tone of a second drawing."""

from __future__ import annotations

import numpy as np
import pytest

from promptmill.jobs import Item
from worker.gan import asking, captions, colours, composing, skin, words
from worker.gan.colours import Paint, Pixels
from worker.gan.encoder import TextEncoder
from worker.generators import gan

YELLOW, ORANGE, BLOND, BLUE = (255, 202, 40), (250, 140, 20), (240, 190, 60), (40, 90, 200)


def person(face: Paint, hair: Paint, shirt: Paint = ORANGE) -> Pixels:
    """Hair over a face with an eye, over a shirt, and blue trousers, on white."""
    made = np.full((64, 64, 3), 255, dtype=np.uint8)
    made[4:14, 16:48], made[14:34, 16:48], made[20:24, 22:26] = hair, face, (60, 40, 30)
    made[34:50, 10:54], made[50:62, 20:44] = shirt, BLUE
    return made


@pytest.mark.parametrize("tone", range(5))
def test_the_face_takes_the_tone_and_hair_and_clothes_are_as_in_the_drawings(tone: int) -> None:
    dark = (30, 22, 20)
    rough = person(skin.TONES[tone], dark)
    rough[14:34, 32:48:2] = 255 - rough[14:34, 32:48:2] // 2  # what the network smears
    plain = person(YELLOW, BLOND)
    made = skin.toned(plain, rough, tone)
    assert np.abs(made[28, 20:46].astype(int) - skin.TONES[tone]).max() <= 10
    assert (made[8, 20:44] == dark).all()
    assert np.array_equal(made[36:62], plain[36:62]) and (made[:3] == 255).all()
    assert (made[22, 24] == (60, 40, 30)).all()


def test_who_has_no_yellow_skin_is_as_the_second_drawing() -> None:
    plain, drawn = person(BLUE, BLUE, BLUE), person(skin.TONES[1], (30, 22, 20))
    assert skin.toned(plain, drawn, 1) is drawn


@pytest.fixture(scope="module")
def shipped() -> TextEncoder:
    return TextEncoder(gan.WEIGHTS)


def test_a_prompt_that_tells_of_a_tone_is_drawn_twice(shipped: TextEncoder) -> None:
    prompts = "👍🏿", "a cat and a light skinned astronaut", "a dark forest", "thumbs up"
    asked = [asking.asked(prompt, shipped.naming) for prompt in prompts]
    plan = composing.planned(asked, shipped)
    assert plan.counts == [1, 2, 1, 1] and plan.items == [0, 1, 1, 2, 3, 0, 1]
    assert plan.tones == [(0, 4), (2, 0)]
    thumbs, astronaut = shipped.encode(["thumbs up", "astronaut"])
    assert np.array_equal(plan.texts[5], thumbs) and np.array_equal(plan.texts[6], astronaut)
    assert np.array_equal(plan.shown, [thumbs, plan.texts[1], astronaut, *plan.texts[3:5]])
    assert not np.array_equal(plan.texts[0], thumbs)


def test_every_name_in_a_tone_is_known_without_it(shipped: TextEncoder) -> None:
    naming = shipped.naming
    toned = [key for key in naming.names if words.toned(key.split()) and not words.signs(key)]
    places = {naming.names[key] for key in toned}
    assert len(places) >= 800 and places == set(naming.skins)
    hand = naming.names["waving hand"]
    tones = [
        naming.skins[naming.names[words.key(f"waving hand: {tone}")]] for tone in captions.TONES
    ]
    assert tones == [(hand, tone) for tone in range(5)]


def test_a_plan_is_composed_item_by_item(shipped: TextEncoder) -> None:
    prompts = ["a red dog", "👍🏽 and a cat", "a green cat and 👍🏻", "moon"]
    asked = [asking.asked(prompt, shipped.naming) for prompt in prompts]
    chance = np.random.default_rng(0)
    whole = composing.planned(asked, shipped)
    drawn = chance.integers(0, 256, (len(whole.texts), 64, 64, 3)).astype(np.uint8)
    drawn[-2:] = person(YELLOW, BLOND)
    kept = drawn.copy()
    together = whole.composed(drawn)
    assert np.array_equal(drawn, kept)
    for number, one in enumerate(asked):
        alone = composing.planned([one], shipped)
        rows = [row for row, item in enumerate(whole.items) if item == number]
        assert np.array_equal(alone.composed(drawn[rows])[0], together[number])
    assert np.array_equal(together[3], drawn[whole.items.index(3)])
    assert np.array_equal(together[0], colours.painted(drawn[:1], ["red"])[0])


def test_a_thumb_has_the_tone_that_is_asked_for_whatever_stands_beside_it() -> None:
    model = gan.EmojiGan()
    model.load(device="cpu", quantization="auto")
    prompts = [f"thumbs up, {tone}, noto" for tone in captions.TONES]
    items = [Item(n, n, 0, prompt, 3, 64, 64) for n, prompt in enumerate(prompts)]
    made = model.generate(items)
    for number, picture in enumerate(made):
        inked = picture[picture.min(-1) < 235].astype(int)
        gaps = [np.abs(np.median(inked, 0) - tone).sum() for tone in skin.TONES]
        assert int(np.argmin(gaps)) == number, gaps
    assert all(np.array_equal(model.generate([item])[0], made[item.index]) for item in items)
