"""Drawings of the hands that only judge in colours and skin tones in which they were not drawn:
their SVG files with fills replaced."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from worker.gan import archives, colours, words
from worker.gan.colours import Main, Paint, Pixels
from worker.gan.data import Concept

TONES: tuple[Paint, ...] = (  # from light to dark, about the Fitzpatrick scale's
    (248, 220, 196), (236, 196, 150), (207, 161, 118), (168, 118, 76), (112, 74, 54),
)  # fmt: skip
MODIFIER = 0x1F3FB  # the first of five
THING = 0.5  # the least weight of a concept that is neither person, flag nor sign
SHADES = 18  # levels that a channel of a paint may differ by, there and back
SKINS: Mapping[str, tuple[tuple[str, ...], ...]] = {  # package -> its skins, each base first
    "@iconify-json/emojione@1.2.3": (("ffdd67", "eba352"),),
    "@iconify-json/emojione-v1@1.2.3": (
        ("efb086", "dda37c", "d69b74"),
        ("fbbf67", "fabe67", "f9bd67", "c07929", "c37929", "c57929", "e79d3d"),
    ),
    "@iconify-json/fxemoji@1.2.2": (
        ("ffd3b6", "edc0a2", "e5ab83", "f2c7aa", "fdc8a6", "d8b09a", "ffe0cf"),
    ),
    "@iconify-json/streamline-emojis@1.2.4": (
        ("ffcebf", "ffdcd1", "ffb59e", "ffa694"),
        ("ffe500", "fff48c", "ebcb00"),
    ),
}
_COLOUR = re.compile(rb"#([0-9a-fA-F]{6}|[0-9a-fA-F]{3})\b")


@dataclass(frozen=True, slots=True)
class Toned:
    """tones: concepts in a skin tone; of: of a concept that takes one, the tone's number and the
    concept in it."""

    tones: frozenset[int]
    of: Mapping[int, Sequence[tuple[int, int]]]


def in_tones(chosen: Sequence[Concept]) -> Toned:
    plain = {archives.points(concept.code): number for number, concept in enumerate(chosen)}
    of: dict[int, list[tuple[int, int]]] = {}
    for number, concept in enumerate(chosen):
        points = archives.points(concept.code)
        tone = next((point - MODIFIER for point in points if 0 <= point - MODIFIER < 5), None)
        base = plain.get(tuple(point for point in points if point - MODIFIER not in range(5)))
        if tone is not None and base is not None:
            of.setdefault(base, []).append((tone, number))
    return Toned(frozenset(number for each in of.values() for _, number in each), of)


def dyeable(chosen: Sequence[Concept]) -> list[int]:
    """Numbers of the concepts of which one may ask in any colour: things, no people, flags or signs
    (`data.SELDOM`), nor what is called by a colour."""
    toned = in_tones(chosen)
    return [
        number
        for number, concept in enumerate(chosen)
        if concept.weight >= THING
        and number not in toned.of
        and not concept.label.startswith("flag: ")
        and colours.PAINTS.keys().isdisjoint(words.words(concept.label))
    ]


def varied(paint: Paint, chance: random.Random) -> Paint:
    """A shade of a paint that chance picks."""
    red, green, blue = (
        min(255, max(0, level + chance.randint(-SHADES, SHADES))) for level in paint
    )
    return red, green, blue


def dyed(svg: bytes, picture: Pixels, paint: Paint) -> bytes:
    """A drawing with most of it in a paint. picture: uint8 [3, S, S], how it looks."""
    was = colours.main(picture.transpose(1, 2, 0))
    return _mapped(svg, lambda found: colours.replaced(found, was, paint))


def skinned(svg: bytes, hand: str, tone: Paint) -> bytes | None:
    """A drawing by one of the hands of `SKINS` whose skin has a tone; None where none is seen."""
    there = {_hexadecimal(match).lower() for match in _COLOUR.findall(svg)}
    skin = next((each for each in SKINS[hand] if there & set(each[:2])), None)
    if skin is None:
        return None
    red, green, blue = _rgb(skin[0])
    low = min(red, green, blue)
    was, own = Main(0, low, max(red, green, blue) - low), {_rgb(each) for each in skin}

    def toned(found: Pixels) -> Pixels:
        parts = found.astype(np.int64)
        low = parts.min(-1, keepdims=True)
        chroma = parts.max(-1, keepdims=True) - low
        made = low + chroma * (np.array(tone) - was.low) // was.chroma
        mine = np.array([tuple(each) in own for each in found.tolist()])
        return np.where(mine[:, None], made.clip(0, 255), parts).astype(np.uint8)

    return _mapped(svg, toned)


def _mapped(svg: bytes, change: Callable[[Pixels], Pixels]) -> bytes:
    said = list(dict.fromkeys(_COLOUR.findall(svg)))
    if not said:
        return svg
    old = np.array([_rgb(_hexadecimal(each)) for each in said], dtype=np.uint8)
    new = dict(zip(said, change(old).tolist(), strict=True))
    return _COLOUR.sub(lambda match: b"#%02x%02x%02x" % tuple(new[match[1]]), svg)


def _hexadecimal(digits: bytes) -> str:
    text = digits.decode()
    return text if len(text) == 6 else "".join(2 * digit for digit in text)


def _rgb(digits: str) -> Paint:
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue
