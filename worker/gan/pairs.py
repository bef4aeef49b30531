"""Two subjects in one prompt: where one ends and the other begins, and how two drawings make
one picture. The network draws one thing; a prompt that names two asks it twice."""

from __future__ import annotations

import itertools
import re
from collections.abc import Container, Sequence

import numpy as np
from numpy.typing import NDArray

from worker.gan import grammar, words
from worker.gan.inputs import SIDE
from worker.gan.tongues import Tongues

Pixels = NDArray[np.uint8]

_ONE = r"(?:an?|the|one|two|three|some|my|your|his|her|our|their)"  # begins a thing of its own
_AND = re.compile(rf"\s+(?:and|&)\s+(?={_ONE}\s+(?!(?:\w+\s+)?one\b))", re.IGNORECASE)
_BESIDE = re.compile(r"\s+(?:next\s+to|beside)\s+", re.IGNORECASE)
_DETERMINED = re.compile(rf"\b{_ONE}\s+\S", re.IGNORECASE)
_PARTS = re.compile(
    r"\b(?:with|without|showing|wearing|holding|having|between)\b", re.IGNORECASE
)  # what follows belongs to the one thing before
_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)
LONGEST = 300  # characters; what is longer tells a story and is not cut
_LINK = re.compile(rf"\s+(?:and|[&+])\s+|{_BESIDE.pattern}", re.IGNORECASE)


def subjects(
    text: str, known: Container[str] = (), abroad: Tongues | None = None
) -> tuple[str, ...]:
    """The two things that a text asks for, or the text alone. known: names of things, by
    `words.key`; abroad: those of other languages. Cut is between two emoji or two names ("cat and
    dog", "cats and dogs, furry"), never within one ("bow and arrow"), and else only what is
    plainly two: "a cat and a dog", not "a black and white cat", "a castle with a tower and a flag"
    or "it rains and we stay at home"."""
    spaced = " ".join(text.split())
    first = spaced.partition(",")[0]
    one = _is_known(spaced, known) or (_LINK.search(first) and _is_known(first, known))
    if len(spaced) > LONGEST or one:
        return (text,)
    signs = words.drawn(spaced)
    if len(signs) == 2 and all(words.key(words.neutral(sign, known)) in known for sign in signs):
        return signs[0], signs[1]
    for link in _LINK.finditer(spaced):
        two = spaced[: link.start()].strip(), spaced[link.end() :].strip()
        if _is_known(two[0], known) and _is_known(two[1].partition(",")[0], known):
            return two[0], _ARTICLE.sub("", two[1])
    cut = _plainly(spaced)
    if len(cut) < 2 and abroad:
        cut = abroad.two(spaced) or cut
    return cut if len(cut) == 2 else (text,)


def _is_known(text: str, known: Container[str]) -> bool:
    """Whether a text is a name, or how something looks before its name."""
    name = words.key(text)
    said = name.split()
    plain = " ".join(itertools.dropwhile(words.ATTRIBUTES.__contains__, said))
    looks = set(said) <= set(words.ATTRIBUTES)
    asked = (name, plain)
    return not looks and any(form in known for one in asked for form in grammar.forms(one))


def _plainly(text: str) -> tuple[str, ...]:
    cut = _BESIDE.search(text) or _AND.search(text)
    if cut is None:
        return (text,)
    before, after = text[: cut.start()].strip(), _ARTICLE.sub("", text[cut.end() :].strip())
    whole = _PARTS.search(before) or not (before and after)
    if whole or (cut.re is _AND and not _DETERMINED.search(before)):
        return (text,)
    return before, after


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
    canvas = np.full((SIDE, SIDE, 3), 255, dtype=np.uint8)
    canvas[SIDE // 4 : SIDE - SIDE // 4] = np.concatenate(list(half(two)), axis=1)
    return canvas


def half(pictures: Pixels) -> Pixels:
    """Pictures [N, 64, 64, 3] at [N, 32, 32, 3]: the mean of four pixels, rounded."""
    rows = pictures[:, ::2].astype(np.uint16) + pictures[:, 1::2]
    sums = rows[:, :, ::2] + rows[:, :, 1::2]
    halves: Pixels = ((sums + 2) // 4).astype(np.uint8)
    return halves
