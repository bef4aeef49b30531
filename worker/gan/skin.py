"""Skin tones: somebody drawn as one is without a tone, which the network does best, in the tone
that a second drawing was asked for. All in integers: a picture's bytes are its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from worker.gan import colours
from worker.gan.colours import Levels, Main, Paint, Pixels

TONES: tuple[Paint, ...] = (  # from light to dark: the mean of the three vendors
    (250, 219, 196), (235, 196, 160), (199, 151, 121), (163, 112, 84), (108, 74, 64),
)  # fmt: skip
HUE, REACH = 190, 80  # of skin without a tone, in steps of `colours.HUES`
SHADE = 145  # as far its shades reach
SKIN = 168  # the hue from which a yellow is hardly ever that of clothes
FAINT, STRONG = 16, 100  # chroma of skin at an edge, and of skin for sure
FEWEST = 20  # pixels of skin for sure, or there is nobody
FEW = 3  # of so many pixels of skin not one is orange, or somebody wears that
CLOTHES, HAIR = (4, 5), (17, 20)  # how much of its chroma the second drawing keeps there
DARK = (3, 5)  # how light hair is at most in it, beside skin in that tone
TINTED = 60  # steps by which the two may differ in hue in what keeps its colour


def toned(plain: Pixels, drawn: Pixels, tone: int) -> Pixels:
    """plain, drawn: two drawings [H, W, 3] of the same seed and style, without a tone and in one,
    of `TONES`. What is yellow in the first and has changed in the second is skin, or, where it is
    much darker than that tone, hair; all else is as in the first."""
    hue, low, chroma = colours.parts(plain)
    yellow = colours.near(hue, HUE, REACH) & (chroma >= FAINT)
    sure = yellow & (chroma >= STRONG) & (hue >= SKIN)
    if np.count_nonzero(sure) < FEWEST:
        return drawn
    weight = chroma[sure]
    means = (int((of[sure] * weight).sum()) // int(weight.sum()) for of in (low, chroma))
    was = Main(HUE, *means)
    mixed = np.stack([colours.mixed(low, chroma, was, level) for level in TONES[tone]], -1)
    skin = mixed.clip(0, 255).astype(np.uint8)
    hue_there, _, chroma_there = colours.parts(drawn)
    kept = _around(chroma_there), _around(chroma)
    orange = yellow & (hue < SKIN)
    clothed = FEW * np.count_nonzero(orange) > np.count_nonzero(sure)
    if not clothed:  # its orange is the shade of its yellow
        orange[:] = False
        yellow = colours.near(hue, HUE, SHADE) & (chroma >= FAINT)
    same = np.where(orange, _share(*kept, CLOTHES), _share(*kept, HAIR))
    same &= colours.near(hue_there - hue, 0, TINTED)
    dark = ~_share(_light(drawn), _light(skin), DARK)
    made = np.where((yellow & ~_mostly(same))[..., None], skin, plain)
    found: Pixels = np.where((yellow & _mostly(dark))[..., None], drawn, made)
    return found


def _share(one: Levels, other: Levels, share: tuple[int, int]) -> NDArray[np.bool_]:
    """Where one is at least that share of the other."""
    found: NDArray[np.bool_] = one * share[1] >= other * share[0]
    return found


def _mostly(found: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where it is so at most of nine pixels: no single ones."""
    most: NDArray[np.bool_] = _around(found.astype(np.int32)) > 4
    return most


def _light(pixels: Pixels) -> Levels:
    return _around(pixels.sum(-1, dtype=np.int32))


def _around(levels: Levels) -> Levels:
    """Sums of nine: levels [H, W] with their neighbours."""
    edged = np.pad(levels, 1, mode="edge")
    rows = edged[:-2] + edged[1:-1] + edged[2:]
    sums: Levels = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    return sums
