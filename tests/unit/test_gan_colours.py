"""Pictures in other colours, and the prompts that ask for them."""

from __future__ import annotations

import hashlib
import time

import numpy as np
import pytest

from promptmill.jobs import Item
from worker.gan import asking, colours, composing, pairs
from worker.gan.colours import PAINTS, Pixels
from worker.gan.encoder import TextEncoder
from worker.generators import gan

RED, LEAF, GREY = (205, 50, 40), (40, 150, 60), (150, 150, 150)


def apple(body: tuple[int, int, int] = RED) -> Pixels:
    """A disc with a soft edge, a shadow and a light, and a small leaf, on white."""
    y, x = np.mgrid[:64, :64] - 31.5
    cover = np.clip(26 - np.hypot(x, y + 0), 0, 1)[..., None]
    shade = np.where(x > 10, 0.7, 1.0)[..., None]
    made = 255 * (1 - cover) + cover * shade * np.array(body)
    made[20:24, 20:24] = 255 - (255 - np.array(body)) / 2
    made[2:8, 30:36] = LEAF
    return np.rint(made).astype(np.uint8)


@pytest.fixture(scope="module")
def shipped() -> TextEncoder:
    return TextEncoder(gan.WEIGHTS)


@pytest.mark.parametrize("paint", PAINTS)
@pytest.mark.parametrize("body", [RED, GREY], ids=["red", "grey"])
def test_most_of_a_picture_takes_the_paint_and_the_rest_stays(
    paint: str, body: tuple[int, int, int]
) -> None:
    before = apple(body)
    (after,) = colours.painted(before[None], [paint])
    middle = after[32, 32].astype(int)
    assert np.abs(middle - PAINTS[paint]).max() <= 30, middle
    paper, leaf = (before == 255).all(2), (before == LEAF).all(2)
    assert (after[paper] == 255).all()
    assert (after[leaf] == LEAF).all()
    shadow, light = after[32, 48].astype(int), after[22, 22].astype(int)
    assert shadow.sum() < middle.sum() < light.sum()


def test_the_edge_of_what_is_painted_keeps_nothing_of_the_old_paint() -> None:
    (after,) = colours.painted(apple()[None], ["blue"])
    inked = after[12:52].reshape(-1, 3).astype(int)
    assert (inked[:, 2] >= inked[:, 0]).all()


def test_a_picture_is_painted_the_same_in_any_company() -> None:
    one, other = apple(), apple(GREY)[::-1]
    together = colours.painted(np.stack([one, other, one]), ["pink", None, "green"])
    assert np.array_equal(together[0], colours.painted(one[None], ["pink"])[0])
    assert np.array_equal(together[1], other)
    untouched = np.stack([one, other])
    assert colours.painted(untouched, [None, None]) is untouched
    digest = hashlib.sha256(np.ascontiguousarray(together).tobytes()).hexdigest()
    assert digest == "72fccab80052170d997ee0afb0079f4dae3ba7eebe11af513d3c24965ca5211d"


def test_what_is_in_its_colour_already_stays() -> None:
    red, white = apple(), np.full((64, 64, 3), 255, dtype=np.uint8)
    white[20:44, 8:56], white[30:34, 8:56] = 235, RED  # as an ambulance is
    grey = apple(GREY)
    same = colours.painted(np.stack([red, white, grey]), ["red", "white", "grey"])
    assert np.array_equal(same, np.stack([red, white, grey]))
    changed = colours.painted(np.stack([red, white, grey]), ["white", "black", "red"])
    assert not any(np.array_equal(*pair) for pair in zip(changed, same, strict=True))


@pytest.mark.parametrize("level", [0, 3, 128, 255])
def test_a_picture_of_one_level_can_be_painted(level: int) -> None:
    plain = np.full((1, 64, 64, 3), level, dtype=np.uint8)
    for paint in PAINTS:
        made = colours.painted(plain, [paint])
        assert made.shape == plain.shape and (level < 255 or (made == 255).all())


@pytest.mark.parametrize(
    ("prompt", "texts", "paints"),
    [
        ("a blue apple", ("a apple",), ("blue",)),
        ("Purple cat", ("cat",), ("purple",)),
        ("two tiny GRAY cats", ("two tiny cats",), ("grey",)),
        ("a violet rocket, digital art", ("a rocket, digital art",), ("purple",)),
        ("a pink elephant in a red house", ("a elephant in a red house",), ("pink",)),
        ("a photo of a green penguin", ("a photo of a penguin",), ("green",)),
        ("a yellow face with tongue", ("a face with tongue",), ("yellow",)),
        ("a blue cat and a green dog", ("a cat", "dog"), ("blue", "green")),
        ("red cats and black dogs", ("cats", "dogs"), ("red", "black")),
        ("a cat and a blue dog", ("a cat", "dog"), (None, "blue")),
        ("a white horse on a green hill", ("a horse on a green hill",), ("white",)),
        ("a red heart", ("a red heart",), (None,)),  # has a name
        ("a green apple", ("a green apple",), (None,)),
        ("black cat", ("black cat",), (None,)),
        ("an orange", ("an orange",), (None,)),
        ("blue", ("blue",), (None,)),
        ("a black and white cat", ("a black and white cat",), (None,)),
        ("a black and white cat on a mat", ("a black and white cat on a mat",), (None,)),
        ("a red blue rabbit", ("a red blue rabbit",), (None,)),
        ("a cat with a blue hat", ("a cat with a blue hat",), (None,)),
        ("ein rotes Auto", ("ein Auto",), ("red",)),
        ("Un chien noir", ("Un chien",), ("black",)),
        ("el coche AZUL, fotografía", ("el coche , fotografía",), ("blue",)),
        ("红色的汽车", ("汽车",), ("red",)),
        ("青いりんご", ("りんご",), ("blue",)),
        ("ピンクの豚", ("豚",), ("pink",)),
        ("ein rotes und blaues Auto", ("ein rotes und blaues Auto",), (None,)),
        ("eine Katze schläft auf dem warmen Dach im roten Haus", None, (None,)),
        ("口红", ("口红",), (None,)),
        ("rote", ("rote",), (None,)),
        ("ein lila Hut", ("ein Hut",), ("purple",)),
        ("weißer Hund", ("Hund",), ("white",)),
        ("ein GRU\u0308NES Auto", ("ein Auto",), ("green",)),
        ("un poisson violet", ("un poisson",), ("purple",)),
        ("赤の車", ("車",), ("red",)),
        ("Katze mit blauen Augen", ("Katze mit blauen Augen",), (None,)),
        ("chat aux yeux verts", ("chat aux yeux verts",), (None,)),
        ("戴红色帽子的猫", ("戴红色帽子的猫",), (None,)),
        ("un blu", ("un blu",), (None,)),
        ("a purple cat sleeping on a sofa", ("a cat sleeping on a sofa",), ("purple",)),
        ("a red fox jumping over a blue fence", ("a fox jumping over a blue fence",), ("red",)),
        ("draw me a green dog please", ("draw me a dog please",), ("green",)),
        ("I want a blue goat for my website", ("I want a goat for my website",), ("blue",)),
        ("a small blue car", ("a small car",), ("blue",)),
        ("a light green car", ("a car",), ("green",)),
        ("a lime-green frog, noto", ("a frog",), ("green",)),
        ("orange butterflies", ("butterflies",), ("orange",)),
        ("two blue mice", ("two mice",), ("blue",)),
        ("ｐｕｒｐｌｅ　ｃａｔ", ("ｃａｔ",), ("purple",)),
        ("flag of Cape Verde", ("flag of Cape Verde",), (None,)),
        ("small orange diamond", ("small orange diamond",), (None,)),
        ("eight-pointed black star", ("eight-pointed black star",), (None,)),
        ("alien with big black eyes", ("alien with big black eyes",), (None,)),
        ("a firefighter with a red helmet", ("a firefighter with a red helmet",), (None,)),
        ("mahjong red dragon", ("mahjong red dragon",), (None,)),
        ("a blue gronk", ("a blue gronk",), (None,)),
        ("a redcurrant cat", ("a redcurrant cat",), (None,)),
        ("", ("",), (None,)),
    ],
)
def test_what_is_painted(
    shipped: TextEncoder,
    prompt: str,
    texts: tuple[str, ...] | None,
    paints: tuple[str | None, ...],
) -> None:
    """texts: those without their colours; None for the prompt."""
    found = asking.asked(prompt, shipped.naming)
    assert (found.texts, found.colours) == (texts or (prompt,), paints)


@pytest.mark.parametrize(
    "prompt",
    [
        "a red flag of Japan",
        "a black fencer",
        "a black man",
        "a white astronaut on the moon",
        "a brown guy",
        "ein schwarzer Mann",
    ],
)
def test_people_and_flags_are_not_painted_whatever_is_meant(
    shipped: TextEncoder, prompt: str
) -> None:
    plan = composing.planned([asking.asked(prompt, shipped.naming)], shipped)
    assert plan.colours == [None]


def test_no_name_loses_a_colour(shipped: TextEncoder) -> None:
    names = [*shipped.naming.known, "a pair of blue jeans", "a green apple"]
    lost = [name for name in names if shipped.naming.coloured(name) != (name, None)]
    assert lost == ["a pair of blue jeans"] or not lost


def test_a_prompt_of_blanks_takes_no_time(shipped: TextEncoder) -> None:
    begun = time.process_time()
    for blank in (
        " " * 32_000,
        "," * 32_000,
        "blue " * 6_000,
        "in " * 10_000 + "noto",
        "的" * 32_000,
    ):
        asking.asked(blank, shipped.naming)
    assert time.process_time() - begun < 2  # 17 s for the first two alone


@pytest.mark.parametrize(
    ("prompt", "paint"),
    [("ein blauer Apfel", "blue"), ("un gato verde", "green"), ("紫色的猫", "purple")],
)
def test_a_thing_is_painted_in_any_language(shipped: TextEncoder, prompt: str, paint: str) -> None:
    plan = composing.planned([asking.asked(prompt, shipped.naming)], shipped)
    assert plan.colours == [paint]


def test_the_style_of_a_painted_thing_is_read_too(shipped: TextEncoder) -> None:
    found = asking.asked("a blue apple, fluent style", shipped.naming)
    assert found == asking.Asked(("a apple",), ("blue",), 2)


def test_the_generator_draws_the_plain_thing_and_paints_it() -> None:
    model = gan.EmojiGan()
    model.load(device="cpu", quantization="auto")
    prompts = "a blue apple", "a apple", "a apple and a pink dog", "a apple", "dog"
    items = [Item(n, n, 0, prompt, 7, 64, 64) for n, prompt in enumerate(prompts)]
    blue, plain, two, left, right = model.generate(items)
    assert np.array_equal(blue, colours.painted(plain[None], ["blue"])[0])
    pink = colours.painted(right[None], ["pink"])[0]
    assert np.array_equal(two, pairs.beside(np.stack([left, pink])))
    scores = model.score(items, np.stack([blue, plain, two, left, right]))
    assert scores[0] > 0.3
