"""Phrases around names in other languages, none of which any training used, and how many of them
are read as what they name."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from worker.gan import asking, words
from worker.gan.data import Concept
from worker.gan.encoder import TextEncoder

FRAMES: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "zh": ("一只{}", "可爱的{}", "我想要一个{}", "{}的图片", "一个{}在草地上"),
    "ja": ("{}の絵", "かわいい{}", "{}をください", "草の上の{}", "{}が走っている"),
    "ko": ("귀여운 {}", "{} 그림", "풀밭 위의 {}"),
    "th": ("{}น่ารัก",),
    "de": ("ein Bild von einem {}", "ich möchte ein {}", "ein {} im Garten", "der kleine {}"),
    "es": ("quiero un {}", "una foto de un {}", "un {} feliz", "un {} en la nieve"),
    "fr": ("une image de {}", "je veux un {}", "un {} dans le jardin", "un petit {}"),
    "it": ("voglio un {}", "un disegno di {}", "un {} nel bosco"),
    "pt": ("quero um {}", "uma foto de {}", "um {} na praia"),
    "ru": ("картинка {}", "маленький {}", "{} на столе"),
    "sv": ("en liten {}", "en bild av {}"),
    "pl": ("mały {}", "obrazek {}"),
})  # fmt: skip
NAMES = 250  # of each language
LONGEST = 3  # words of a name


def share(
    encoder: TextEncoder,
    chosen: Sequence[Concept],
    languages: Mapping[str, Sequence[dict[str, Any]]],
) -> dict[str, float]:
    """`phrases_…` of each language: how many phrases are drawn as one thing, that whose published
    name is in them."""
    numbers = {concept.code: number for number, concept in enumerate(chosen)}
    chance, told = random.Random(0), {}
    for language, frames in FRAMES.items():
        known = [
            (entry["label"], numbers[entry["hexcode"]])
            for entry in languages[language]
            if entry["hexcode"] in numbers and len(words.words(entry["label"])) <= LONGEST
        ]
        asked = [
            (asking.asked(frame.format(name), encoder.naming).texts, number)
            for name, number in chance.sample(known, min(NAMES, len(known)))
            for frame in frames
        ]
        places = encoder.places([texts[0] for texts, _ in asked])
        right = sum(
            len(texts) == 1 and place == number
            for place, (texts, number) in zip(places, asked, strict=True)
        )
        told[f"phrases_{language}"] = right / len(asked)
    return told
