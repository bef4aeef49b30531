"""Two subjects in one prompt: where one ends and the other begins, and how two drawings make
one picture. The network draws one thing; a prompt that names two asks it twice."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from worker.gan.inputs import SIDE

Pixels = NDArray[np.uint8]

_BETWEEN = re.compile(r"\s+(?:and|&|next\s+to|beside)\s+(?:an?\s+|the\s+)?", re.IGNORECASE)
COLOURS = frozenset(
    (
        "red", "blue", "green", "yellow", "orange", "purple", "pink", "black", "white", "brown",
        "gray", "grey", "golden", "silver",
    )
)  # fmt: skip
ONE_THING = frozenset(
    (
        "antigua barbuda", "bat ball", "bosnia herzegovina", "bow arrow", "ceuta melilla",
        "couch lamp", "eyes hand", "finger thumb", "fork knife", "georgia south", "hammer pick",
        "hammer wrench", "heard mcdonald", "kitts nevis", "large one", "lightning rain",
        "man woman", "nut bolt", "pierre miquelon", "pole fish", "racquet shuttlecock",
        "skull crossbones", "star crescent", "stick ball", "svalbard jan", "trinidad tobago",
        "turks caicos", "tomé príncipe", "vincent grenadines", "wallis futuna", "woman man",
    )
)  # fmt: skip  # last word before and first word after, in names of one picture


def subjects(text: str) -> tuple[str, ...]:
    """The two things that a text asks for, or the text alone. "a cat and a dog" is two; "bow
    and arrow" is the name of one, "a black and white cat" one in two colours."""
    for cut in _BETWEEN.finditer(text):
        before, after = text[: cut.start()].split(), text[cut.end() :].split()
        if not before or not after:
            continue
        last, first = before[-1].lower(), after[0].lower().strip(",.!?")
        if last not in COLOURS and f"{last} {first}" not in ONE_THING:
            return " ".join(before), " ".join(after)
    return (text,)


def join(drawn: Pixels, counts: Sequence[int]) -> Pixels:
    """Pictures uint8 [N, 64, 64, 3] of N items from those of all their subjects, in order;
    counts [N]: how many each item has. All in integers: an item's bytes are its own."""
    ends = np.cumsum(counts)
    made: Pixels = drawn[ends - counts]
    for row, (end, count) in enumerate(zip(ends, counts, strict=True)):
        if count == 2:
            made[row] = beside(drawn[end - 2 : end])
    return made


def beside(two: Pixels) -> Pixels:
    """Two pictures [2, 64, 64, 3] as one [64, 64, 3]: half as large, side by side on white, in
    their order."""
    sums = two.reshape(2, SIDE // 2, 2, SIDE // 2, 2, 3).sum((2, 4), dtype=np.int32)
    halves = ((sums + 2) // 4).astype(np.uint8)
    canvas = np.full((SIDE, SIDE, 3), 255, dtype=np.uint8)
    canvas[SIDE // 4 : SIDE - SIDE // 4] = np.concatenate(list(halves), axis=1)
    return canvas
