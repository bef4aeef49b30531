"""Texts are drawn to the nearest known name, to the same bits in any company."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from worker.gan import captions, memory, student_encoder, words
from worker.gan.encoder import FILE, NAMES, TextEncoder, by_torch
from worker.gan.everyday import EVERYDAY
from worker.gan.memory import Cue, Floats, Memory
from worker.generators.gan import WEIGHTS


def units(count: int, seed: int) -> Floats:
    return memory.unit(np.random.RandomState(seed).randn(count, 384).astype(np.float32))


@pytest.fixture(scope="module")
def shipped() -> TextEncoder:
    return TextEncoder(WEIGHTS)


def memory_of(names: Floats, said: Sequence[frozenset[str]] = ()) -> Memory:
    """Of things that have one name each."""
    count = len(names)
    words = said or [frozenset({f"name{n}"}) for n in range(count)]
    return Memory(names, names, words, range(count), dense=by_torch)


def recalled(kept: Memory, texts: Floats, **cues: Cue) -> Floats:
    """cues: those of some rows, by "_ROW"."""
    given = [cues.get(f"_{row}", Cue(frozenset())) for row in range(len(texts))]
    return kept.recalled(texts, given)[0]


def test_a_text_moves_towards_the_nearest_name_and_no_other() -> None:
    names = units(50, 0)
    near = memory.unit(names[7:8] + units(1, 1))
    (found,) = recalled(memory_of(names), near)
    before, after = names @ near[0], names @ found
    assert before.argmax() == 7 and after[7] > before[7] + 0.1
    assert found @ near[0] > 0.9 and abs(np.linalg.norm(found) - 1) < 1e-6


def test_a_name_stays_where_it_is() -> None:
    names = units(50, 0)
    assert np.allclose(recalled(memory_of(names), names), names, atol=1e-6)


def test_what_is_recalled_is_the_same_bits_in_any_company() -> None:
    names, texts = units(2500, 0), units(64, 1)
    kept = memory_of(names)
    whole = recalled(kept, texts)
    for size in (1, 7, 32):
        parts = [recalled(kept, texts[at : at + size]) for at in range(0, 64, size)]
        assert np.array_equal(np.concatenate(parts), whole)


def test_what_is_nearer_without_its_looks_decides_unless_the_name_is_said() -> None:
    names, texts = units(50, 0), units(3, 1)
    kept = memory_of(names)
    usual = recalled(kept, texts)
    said = frozenset({f"name{(texts[0] @ names.T).argmax()}", "more"})
    found = recalled(
        kept,
        texts,
        _0=Cue(said, bare=names[7]),
        _1=Cue(frozenset(), bare=names[7]),
        _2=Cue(frozenset(), bare=-texts[2]),
    )
    assert np.array_equal(found[[0, 2]], usual[[0, 2]])
    assert (found[1] @ names.T).argmax() == 7


def test_only_what_tells_of_a_skin_tone_is_drawn_to_one() -> None:
    names = units(50, 0)
    said = [frozenset({f"name{n}"} | ({"skin"} if n >= 40 else set())) for n in range(50)]
    kept = memory_of(names, said)
    near = memory.unit(names[[45, 45, 3]] + 0.5 * units(3, 1))
    told, quiet = Cue(frozenset({"skin", "dark"})), Cue(frozenset({"dark"}))
    found = kept.recalled(near, [told, quiet, told])[0] @ names.T
    before = near @ names.T
    assert found[0, 45] > before[0, 45] + 0.01 and found[2, 3] > before[2, 3] + 0.01
    assert found[1, 45] < before[1, 45]


def test_what_a_text_is_about_decides_unless_what_is_nearest_has_a_word_of_it() -> None:
    names, near = units(50, 0), memory.unit(units(50, 0)[[3, 3, 3, 3]] + 0.4 * units(4, 1))
    said = [frozenset({f"name{n}"} | ({"with", "x"} if n == 3 else set())) for n in range(50)]
    said[9] |= {"x"}
    kept = memory_of(names, said)
    head = (7, frozenset({"name7"}))
    whole = Cue(said[3] | {"name7"}, head=head)
    given = [Cue(frozenset(), head=head), whole, Cue(frozenset(), head=(9, said[9])), Cue(said[3])]
    assert (kept.recalled(near, given)[0] @ names.T).argmax(1).tolist() == [7, 3, 3, 3]


def test_a_word_of_every_day_has_to_be_nearer_than_a_name() -> None:
    """Key 0 stands for thing 7 beside the names; near both, a text is drawn to the name."""
    names, word = units(50, 0), units(1, 3)
    said = [frozenset({f"name{n}"}) for n in range(51)]
    kept = Memory(names, np.concatenate([word, names]), said, [7, *range(50)], dense=by_torch)
    near = memory.unit(np.stack([word[0], word[0] + 0.98 * names[3], word[0] + 0.8 * names[3]]))
    found = recalled(kept, near) @ names.T - near @ names.T
    assert found.argmax(1).tolist() == [7, 3, 7]


def test_sums_of_codes_are_exact_in_float32() -> None:
    """The greatest sum of their products, whatever the vectors: that of a unit with itself."""
    worst = np.abs(np.rint(units(200, 2) * memory.CODES)).astype(np.int64)
    assert np.square(worst).sum(1).max() < 2**24


def test_what_is_known_word_for_word_is_that_name(shipped: TextEncoder) -> None:
    named = {
        "👍🏿": "thumbs up dark skin tone",
        "🧑🏽‍🚀": "astronaut medium skin tone",
        "👩🏾‍🚀": "astronaut medium-dark skin tone",
        "🏃‍♀️": "person running",
        "🧔‍♂️": "man beard",
        "🧜‍♂️": "merman",
        "👨‍👩‍👧": "family",
        "👩🏻‍❤️‍👨🏿": "couple with heart",
        "👩‍❤️‍💋‍👨": "kiss",
        "❤️‍🔥": "heart on fire",
        "beer": "beer mug",
        "an orange": "tangerine",
        "Bull": "ox",
        "UK flag": "flag of United Kingdom",
        "lightbulb": "light bulb",
        "sad": "frowning face",
        "❤️": "red heart",
    }
    close = shipped.encode(list(named)) @ shipped.read(list(named.values())).T
    assert (close.argmax(1) == np.arange(len(named))).all()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Rocket, owl", "rocket"),
        ("an owl , rocket, digital art", "owl"),
        ("sauce, spicy sauce", "jar"),
        ("photo, a cat", "cat"),
        ("hey, draw me a dog", "dog"),
        (", cat", "cat"),
        ("thumbs up, dark skin tone, digital art", "thumbs up dark skin tone"),
        ("👍🏿 please", "thumbs up dark skin tone"),
        ("🐱 on a mat", "cat face"),
        ("dark forest", "deciduous tree"),
        ("a bull in a field", "ox"),
        ("a sad dog", "dog"),
        ("a 👩🏿‍🌾 at work", "farmer dark skin tone"),
        ("hen, in a barn", "chicken"),
        ("a cat with sunglasses", "cat"),
        ("a grey castle with towers and flags", "castle"),
        ("photo of a snowman wearing a top hat", "snowman"),
        ("two bears riding a bicycle", "bear"),
        ("man with red hair", "man red hair"),
        ("please draw a cup with straw", "cup with straw"),
        ("glass of water on a table", "glass of milk"),
        ("the cat is on the mat", "cat"),
        ("she is eating an apple", "red apple"),
        ("man in tuxedo", "person in tuxedo"),
        ("man with white cane", "person with white cane"),
        ("a small stag", "deer"),
        ("ostrich on a table", "dodo"),
        ("power plant near a city", "cityscape"),
        ("I love eating ice cream", "ice cream"),
        ("plant in a pot", "potted plant"),
        ("hands in prayer", "folded hands"),
        ("a photo of a finger", "index pointing up"),
        ("cobras", "snake"),
        ("🧑‍🧑‍🧒‍🧒", "family"),
        ("👬", "people holding hands"),
        ("🧎‍♀️‍➡️", "person kneeling"),
        ("blue heart on a shirt", "blue heart"),
        ("🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f", "flag of Scotland"),
        ("#️⃣", "keycap #"),
        ("©", "copyright"),
    ],
)
def test_what_a_prompt_is_drawn_to(shipped: TextEncoder, text: str, name: str) -> None:
    names, vectors = _named(shipped)
    close = shipped.encode([text])[0] @ vectors.T
    nearest = [names[place] for place in np.argsort(-close)[:3]]
    assert close[names.index(name)] > close.max() - 1e-6, nearest  # two keycaps read the same


@functools.cache
def _named(shipped: TextEncoder) -> tuple[list[str], Floats]:
    """All names, and their vectors."""
    names = [line.split("\t")[0] for line in _lines()]
    return names, shipped.read(names)


def _lines() -> list[str]:
    return load_file(WEIGHTS / FILE)[NAMES].tobytes().decode().splitlines()


def test_a_word_of_every_day_means_one_thing_and_no_name_of_another(shipped: TextEncoder) -> None:
    own = {words.key(line.split("\t")[0]) for line in _lines()}
    said = [words.key(word) for each in EVERYDAY.values() for word in each]
    assert len(set(said)) == len(said)
    assert own.isdisjoint(said)
    for label, others in EVERYDAY.items():
        place = shipped.naming.names[words.key(captions.names(label, ())[0])]
        assert {shipped.naming.known[words.key(word)] for word in others} == {place}, label


@pytest.mark.parametrize(
    ("asked", "name"),
    [("butterflies", "butterfly"), ("two horses", "horse"), ("cars", "automobile"),
     ("mice", "mouse"), ("wolves", "wolf"), ("palms", "palm tree"), ("glasses", "glasses"),
     ("hot beverages", "hot beverage"), ("a cat sleeping on a sofa", "cat"),
     ("a dog for my website", "dog"), ("a red disc on white, the flag of Japan", "flag of Japan"),
     ("a white cross on red, the Danish flag", "flag of Denmark"), ("rocket, the moon", "rocket")],
)  # fmt: skip
def test_several_of_a_thing_are_that_thing(shipped: TextEncoder, asked: str, name: str) -> None:
    names, vectors = _named(shipped)
    close = shipped.encode([asked])[0] @ vectors.T
    assert names[int(close.argmax())] == name


def test_a_colour_does_not_decide_what_is_drawn(shipped: TextEncoder) -> None:
    names = shipped.read(["star", "yellow circle", "automobile", "leafy green"])
    star, car = shipped.encode(["a yellow star", "a green car"]) @ names.T
    assert star.argmax() == 0 and car.argmax() == 2


def test_what_things_are_called_is_read_back(tmp_path: Path) -> None:
    shutil.copy(WEIGHTS / FILE, tmp_path)
    named = [["Red Heart", "heart"], ["sun", "!"]]
    student_encoder.put_names(tmp_path, named, {"the day": 1, "heart": 1})
    read = TextEncoder(tmp_path)
    assert read.naming.known == {"red heart": 0, "heart": 0, "sun": 1, "day": 1}
    assert read.naming.names == read.naming.known
    assert np.array_equal(read.encode(["day"]), read.read(["sun"]))
    assert np.array_equal(read.encode(["A heart!", "the Sun"]), read.read(["Red Heart", "sun"]))
    (near,) = read.encode(["the sun rises"])
    assert near @ read.read(["sun"])[0] > read.read(["the sun rises"])[0] @ read.read(["sun"])[0]


def test_the_shipped_encoder_draws_a_sentence_to_its_subject(shipped: TextEncoder) -> None:
    said = ["she hung a picture of a rocket above the fireplace"]
    (name,) = shipped.read(["rocket"])
    raw, drawn = shipped.read(said)[0] @ name, shipped.encode(said)[0] @ name
    assert drawn > raw + 0.05
    assert np.allclose(shipped.encode(["rocket"])[0], name, atol=1e-6)
