"""Pictures in other colours: what most of one is painted in, and that replaced. All in integers,
by element: a picture's bytes are its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Levels = NDArray[np.int32]
Paint = tuple[int, int, int]

PAINTS: Mapping[str, Paint] = MappingProxyType({  # the basic colour terms (Berlin and Kay 1969)
    "red": (220, 45, 50), "orange": (250, 140, 25), "yellow": (252, 210, 40),
    "green": (60, 165, 75), "blue": (45, 110, 225), "purple": (140, 70, 195),
    "pink": (245, 130, 185), "brown": (135, 85, 50), "black": (40, 40, 46),
    "white": (228, 228, 234), "grey": (145, 150, 158),
})  # fmt: skip
_OTHER = MappingProxyType({"gray": "grey", "violet": "purple"})
HUES = 1536  # steps around the circle: 256 for each sixth of it
BINS = 24
NEAR = 170  # steps (40 degrees): as far a hue is the same paint, in light and shade
CHROMATIC = 40  # levels between a pixel's channels, from which it counts as coloured
INKED = 245  # a pixel's least channel is below, or it is paper
BITS, FINE = 8, 1 << 8  # of fractions
_SHARE = np.array([HUES // 6 * FINE // max(1, chroma) for chroma in range(256)], np.int32)
DIM = 64  # a grey this dark has hardly any shade, which is kept as it is
TURN, SHADE = 40, 60  # steps of hue and levels, up to which a paint is another shade of one
WHITE = 6  # its main paint covers one pixel of so many at least of what is not white
MOSTLY = 3  # a picture is grey if so many pixels of it are, beside one of its paint


@dataclass(frozen=True, slots=True)
class Main:
    """What most of a picture is painted in. hue: in steps, or None of greys; low: the least
    channel; chroma: by how much the greatest one exceeds it."""

    hue: int | None
    low: int
    chroma: int


def named(word: str) -> str | None:
    """The key of `PAINTS` that a word in small letters is, or means."""
    key = _OTHER.get(word, word)
    return key if key in PAINTS else None


def main(pixels: Pixels) -> Main:
    """The paint that covers most of a picture [H, W, 3]; one pixel of four is looked at."""
    return _main(*parts(pixels[::2, ::2]))


def replaced(pixels: Pixels, was: Main, paint: Paint) -> Pixels:
    """Pixels [..., 3] with one paint replaced by another: what is mixed of it with white and black
    becomes the same mixture of the new one; other hues stay."""
    return _replaced(pixels, parts(pixels), was, paint)


def painted(pictures: Pixels, colours: Sequence[str | None]) -> Pixels:
    """Pictures [N, H, W, 3], each with most of it in its colour, a key of `PAINTS`, if it is not
    so already; None leaves it as it is."""
    if not any(colours):
        return pictures
    made = pictures.copy()
    for row, colour in enumerate(colours):
        if colour is not None:
            found = parts(made[row])
            hue, low, chroma = (part[::2, ::2] for part in found)
            was = _main(hue, low, chroma)
            seen = colour == "white" and not _covers(was, hue, low, chroma)
            if not (seen or _like(was, PAINTS[colour])):
                made[row] = _replaced(made[row], found, was, PAINTS[colour])
    return made


def _main(hue: Levels, low: Levels, chroma: Levels) -> Main:
    coloured = chroma >= CHROMATIC
    bins = np.bincount(hue[coloured] // (HUES // BINS), chroma[coloured], BINS)
    around = bins + np.roll(bins, 1) + np.roll(bins, -1)
    middle = (2 * int(around.argmax()) + 1) * HUES // (2 * BINS)
    own = coloured & near(hue, middle)
    lows, chromas, greys = low[own], chroma[own], low[~coloured & (low < INKED)]
    if MOSTLY * len(lows) <= len(greys):
        return Main(None, int(np.sort(greys)[len(greys) // 2]) if len(greys) else 0, 0)
    weight = int(chromas.sum())
    return Main(middle, int((lows * chromas).sum()) // weight, int(chromas @ chromas) // weight)


def _like(was: Main, paint: Paint) -> bool:
    """Whether a paint is another shade of the main one, which then stays."""
    hue, low, chroma = (int(part[0]) for part in parts(np.array([paint], np.uint8)))
    if was.hue is None:
        return chroma < CHROMATIC and abs(low - was.low) <= SHADE
    shade = max(abs(low - was.low), abs(chroma - was.chroma)) <= SHADE
    return shade and bool(near(np.array([hue]), was.hue, TURN)[0])


def _covers(was: Main, hue: Levels, low: Levels, chroma: Levels) -> bool:
    """Whether the main paint covers so much of what is drawn that this is not white already, as an
    ambulance is."""
    if was.hue is None:
        return True
    rows, columns = (np.flatnonzero((low < INKED).any(axis)) for axis in (1, 0))
    box = int(rows[-1] - rows[0] + 1) * int(columns[-1] - columns[0] + 1)
    own = int(np.count_nonzero((chroma >= CHROMATIC) & near(hue, was.hue)))
    return WHITE * own > box


def _replaced(pixels: Pixels, of: tuple[Levels, Levels, Levels], was: Main, paint: Paint) -> Pixels:
    hue, low, chroma = of
    changed = pixels.copy()
    own = chroma < CHROMATIC if was.hue is None else near(hue, was.hue)
    for channel, new in enumerate(paint):
        if was.hue is None:
            dark = new * low // was.low if was.low > DIM else new + low - was.low
            light = new + (255 - new) * (low - was.low) // max(1, 255 - was.low)
            made = np.where(low <= was.low, dark, light)
        else:
            made = mixed(low, chroma, was, new)
        np.copyto(changed[..., channel], made.clip(0, 255), where=own, casting="unsafe")
    return changed


def parts(pixels: Pixels) -> tuple[Levels, Levels, Levels]:
    """Hue in steps, least channel and chroma of pixels [..., 3] (Smith, "Color Gamut Transform
    Pairs", 1978)."""
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    high = np.maximum(np.maximum(red, green), blue)
    low = np.minimum(np.minimum(red, green), blue)
    chroma = high - low
    reddest, greenest = high == red, high == green
    ahead = np.where(reddest, green - blue, np.where(greenest, blue - red, red - green))
    sixth = np.where(reddest, 0, np.where(greenest, HUES // 3, 2 * HUES // 3))
    hue = sixth + (ahead * _SHARE[chroma] >> BITS)
    return np.where(hue < 0, hue + HUES, hue), low, chroma


def near(hues: Levels, hue: int, reach: int = NEAR) -> NDArray[np.bool_]:
    """Which hues are at most `reach` steps away, the shorter way around."""
    gap = np.abs(hues - hue)
    return (gap <= reach) | (gap >= HUES - reach)


def mixed(low: Levels, chroma: Levels, was: Main, level: int) -> Levels:
    """A channel, of that level in the new paint, where there is low and chroma of the old one."""
    return low + (chroma * ((level - was.low) * FINE // was.chroma) >> BITS)
