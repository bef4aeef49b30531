"""Phrases in other languages: what they are about, where two things are asked for, and what no
English text may become."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.test_gan_memory import WEIGHTS
from worker.gan import asking, corpus, phrases, tongues, words
from worker.gan.data import Concept
from worker.gan.encoder import TextEncoder
from worker.gan.tongues import Tongues


@pytest.fixture(scope="module")
def shipped() -> TextEncoder:
    return TextEncoder(WEIGHTS)


def drawn(encoder: TextEncoder, prompt: str) -> list[tuple[int, str | None]]:
    """The number of the thing that each subject of a prompt is drawn towards, and its colour."""
    asked = asking.asked(prompt, encoder.naming)
    return list(zip(encoder.places(asked.texts), asked.colours, strict=True))


def numbered(encoder: TextEncoder, *found: tuple[str, str | None]) -> list[tuple[int, str | None]]:
    """The same of English names."""
    return [(encoder.naming.names[words.key(name)], paint) for name, paint in found]


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("一只猫", "cat"), ("可爱的猫", "cat"), ("我想要一只猫", "cat"), ("吃鱼的猫", "cat"),
        ("穿和服的猫", "cat"), ("一只狗在草地上", "dog"), ("一个苹果", "red apple"),
        ("日本国旗", "flag of Japan"), ("我的生日蛋糕", "birthday cake"), ("りんごの絵", "red apple"),
        ("草の上の犬", "dog"), ("猫が魚を食べる", "cat"), ("日本の国旗", "flag of Japan"),
        ("귀여운 고양이", "cat"), ("고양이 그림", "cat"), ("일본 국기", "flag of Japan"),
        ("ein Bild von einem Hund", "dog"), ("zwei Hunde", "dog"), ("Flagge von Japan", "flag of Japan"),
        ("un perro feliz", "dog"), ("una foto de un gato en la nieve", "cat"),
        ("un cœur brisé", "broken heart"), ("un coeur brisé", "broken heart"),
        ("lune et étoile", "star and crescent"), ("маленькая собака", "dog"),
        ("um gato na praia", "cat"), ("แมวน่ารัก", "cat"),
    ],
)  # fmt: skip
def test_a_phrase_is_drawn_as_what_it_is_about(
    shipped: TextEncoder, prompt: str, name: str
) -> None:
    assert drawn(shipped, prompt) == numbered(shipped, (name, None))


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("一只红色的猫", [("cat", "red")]),
        ("quiero un coche rojo", [("automobile", "red")]),
        ("猫和狗", [("cat", None), ("dog", None)]),
        ("一个苹果和一个火箭", [("red apple", None), ("rocket", None)]),
        ("りんごとロケット", [("red apple", None), ("rocket", None)]),
        ("고양이와 개", [("cat", None), ("dog", None)]),
        ("แมวและหมา", [("cat", None), ("dog", None)]),
        ("ein roter Hund und eine blaue Katze", [("dog", "red"), ("cat", "blue")]),
        ("un chien et un chat", [("dog", None), ("cat", None)]),
        ("un perro y un gato", [("dog", None), ("cat", None)]),
        ("кошка и собака", [("cat", None), ("dog", None)]),
        ("🐱🐶", [("cat face", None), ("dog face", None)]),
        ("赤い車", [("automobile", "red")]),
        ("en hund og en kat", [("dog", None), ("cat", None)]),
        ("een hond en een kat", [("dog", None), ("cat", None)]),
        ("👩‍🍳👨‍🚀", [("cook", None), ("astronaut", None)]),
        ("1️⃣2️⃣", [("keycap 1", None), ("keycap 2", None)]),
        ("🇫🇷🇯🇵", [("flag of France", None), ("flag of Japan", None)]),
        ("cat + dog", [("cat", None), ("dog", None)]),
    ],
)
def test_two_things_and_colours_are_told_apart(
    shipped: TextEncoder, prompt: str, found: list[tuple[str, str | None]]
) -> None:
    assert drawn(shipped, prompt) == numbered(shipped, *found)


def test_a_colour_of_a_name_is_not_taken_out_of_it(shipped: TextEncoder) -> None:
    assert drawn(shipped, "ein gelbes Quadrat") == numbered(shipped, ("yellow square", None))


@pytest.mark.parametrize(
    "text",
    ["an emoji of fleur de lis", "the chat of a land", "a gift in the night", "", " ", "qwzx",
     "le " * 200, "猫" * 400],
)  # fmt: skip
def test_english_nonsense_and_stories_are_about_no_such_name(
    shipped: TextEncoder, text: str
) -> None:
    assert shipped.naming.abroad.thing(text, shipped.naming._english) is None
    assert shipped.naming.abroad.two(text) is None


def test_emoji_alone_are_told_one_by_one() -> None:
    assert words.drawn("👍🏽 👩🏽‍🚀🇫🇷") == ("👍🏽", "👩🏽‍🚀", "🇫🇷")
    assert words.drawn("👨‍👩‍👧") == ("👨‍👩‍👧",)
    assert words.drawn("🐱 cat") == words.drawn("cat") == words.drawn("") == ()


def entry(code: str, label: str, *tags: str) -> dict[str, Any]:
    return {"hexcode": code, "label": label, "tags": list(tags)}


def test_what_a_shared_tag_means_is_found_by_what_it_stands_for() -> None:
    labels = ("dog", "dog face", "service dog", "keycap 1", "flag of Japan")
    chosen = [Concept(label, "ABCDE"[n], (label,), 1.0) for n, label in enumerate(labels)]
    languages = {
        "en-gb": [entry("A", "dog", "dog"), entry("B", "dog face", "dog"),
                  entry("C", "service dog", "dog", "helper")],
        "ja": [entry("A", "イヌ", "犬"), entry("B", "イヌの顔", "犬"), entry("C", "介助犬", "犬", "helper"),
               entry("D", "キー 1", "一"), entry("E", "旗: 日本")],
    }  # fmt: skip
    names, tags, plain = corpus.abroad(chosen, languages, {"dog": 0}, ["train", "of"])
    assert names["イヌ"] == 0 and names["旗日本"] == names["日本国旗"] == names["日本の国旗"] == 4
    assert tags["犬"] == 0
    assert "一" not in tags and "helper" not in tags, "a number, and a word that is English"
    assert plain == ["train"]
    assert corpus.abroad(chosen[:1], {"ja": languages["ja"]}, {}) == ({"イヌ": 0}, {"犬": 0}, [])
    kept = Tongues(tongues.pack(names, tags, plain))
    assert kept.name("犬", ()) == 0 and kept.name("介助犬", ()) == 2 and kept.name("猫", ()) is None
    assert Tongues().name("犬", ()) is None and Tongues().thing("犬", ()) is None


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("labrador", "dog"), ("solar", "sun"), ("tuba", "trumpet"), ("te amo", "red heart"),
        ("Ich esse einen Apfel", "red apple"), ("красная машина", "automobile"),
        ("un gato en la playa", "cat"), ("un chat en voiture", "cat"), ("사과 한 개", "red apple"),
        ("사과 파이", "pie"), ("メリークリスマス", "Christmas tree"), ("我想要猫", "cat"),
    ],
)  # fmt: skip
def test_words_that_are_no_things_lead_nowhere(
    shipped: TextEncoder, prompt: str, name: str
) -> None:
    """English words that are tags elsewhere, pronouns, links, and signs within words."""
    assert drawn(shipped, prompt) == numbered(shipped, (name, None))


def test_phrases_are_counted_by_what_they_name(shipped: TextEncoder) -> None:
    place = shipped.naming.names["cat"]
    chosen = [Concept(str(n), str(n), (str(n),), 1.0) for n in range(place + 1)]
    languages = {each: [entry(str(place), "猫")] for each in phrases.FRAMES}
    told = phrases.share(shipped, chosen, languages)
    assert told["phrases_zh"] == told["phrases_ja"] == 1.0
    wrong = {each: [entry(str(place), "犬")] for each in phrases.FRAMES}
    assert phrases.share(shipped, chosen, wrong)["phrases_zh"] == 0.0
