"""What a text is drawn towards: the nearest of the names of everything the generator knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.gan import grammar, words

PULL = np.float32(0.5)  # the name's share, beside 1 for the text itself
LEAD = np.float32(3)  # the same of one that leads, or to which there is a longer way
FAINT = np.float32(0.05)  # by so much nearer a word of every day must be than a name
CODES = 2000  # of a component: sums of their products stay below 2**24

Floats = NDArray[np.float32]
Places = NDArray[np.intp]
Dense = Callable[[Floats], Floats]  # codes [N, K] -> their product with weights [K, M]


@dataclass(frozen=True, slots=True)
class Cue:
    """What is known of a text beside its vector. said: its words; bare: a vector [K] of it without
    what says how it looks, which decides where it is nearer to a name ("a yellow star" is nearest
    to a yellow circle, "star" to a star), unless the nearest name is said in full; head: the thing
    that it is about, by its grammar, which decides where the nearest name has no word of it ("a cat
    with sunglasses"), and those words; leads: the name that it begins with; name: the one that it
    is, word for word."""

    said: frozenset[str]
    bare: Floats | None = None
    head: tuple[int, frozenset[str]] | None = None
    leads: int | None = None
    name: int | None = None


class Memory:
    """An associative memory of unit vectors: one step of retrieval at infinite sharpness (Ramsauer
    et al. 2021, eq. 3), keys [M, K] beside values [C, K], of which a part is added. What people
    write around a name leads its vector away from where the generator learned the thing; this
    leads it back, and leaves part of what was said beside it. A key is what a thing is called, its
    value where its own name lies: "a bull in a field" is nearest to "bull" and drawn to "ox".

    Bits: which name is nearest is decided by sums of integers that float32 holds exactly."""

    def __init__(
        self,
        names: Floats,
        keys: Floats,
        said: Sequence[frozenset[str]],
        owners: Sequence[int],
        *,
        dense: Callable[[Floats], Dense],
    ) -> None:
        """said, owners: of each key its words and whose name it stands for. Words of every day come
        first; names follow, the last C keys, those in a skin tone at the end: only a text that
        tells of one is drawn to them. dense: makes a product of its weights."""
        self._names, self._said, self._owners = names, said, np.array(owners)
        self._faint = np.zeros(len(keys), dtype=np.float32)
        self._everyday = len(keys) - len(names)
        self._faint[: self._everyday] = np.rint(FAINT * CODES * CODES)
        self._plain = sum(not words.toned(each) for each in said)
        self._likeness = dense(np.ascontiguousarray(_codes(keys).T))

    def recalled(self, texts: Floats, cues: Sequence[Cue]) -> tuple[Floats, Places]:
        """Unit vectors [N, K] of texts [N, K], each nearer to the name it is nearest to, and the
        numbers [N] of these names. One that is nearer to a skin tone, of which it does not tell
        ("dark forest"), or to a word of every day, which lies elsewhere than the name, moves
        further."""
        bare = {row: cue.bare for row, cue in enumerate(cues) if cue.bare is not None}
        given = np.stack([*texts, *bare.values()])
        nearest, likeness, misled = self._nearest(given, [*cues, *(cues[row] for row in bare)])
        for place, row in enumerate(bare, len(texts)):
            said = self._said[nearest[row]] <= cues[row].said
            if likeness[place] > likeness[row] and not said:
                nearest[row] = nearest[place]
        keys = nearest[: len(texts)]
        nearest, far = self._owners[keys], misled[: len(texts)] | (keys < self._everyday)
        pull: Floats = np.where(far, LEAD, PULL)[:, None].astype(np.float32)
        for row, cue in enumerate(cues):
            first = cue.leads
            if first is None and cue.head is not None and cue.head[0] != nearest[row]:
                beside = self._beside(cue.head[1], self._said[keys[row]], cue.said)
                first = cue.head[0] if beside else None
            if first is not None:
                nearest[row], pull[row] = first, LEAD
        found = unit(texts + pull * self._names[nearest])
        for row, cue in enumerate(cues):
            if cue.name is not None:
                nearest[row], found[row] = cue.name, self._names[cue.name]
        return found, nearest

    def name(self, place: int) -> Floats:
        """The vector [K] of a name."""
        found: Floats = self._names[place]
        return found

    @staticmethod
    def _beside(head: frozenset[str], nearest: frozenset[str], said: frozenset[str]) -> bool:
        """Whether the nearest name is of something beside what a text is about: it has no word of
        that and is not all said, link and all ("cup with straw")."""
        whole = nearest <= said and nearest & grammar.LINKS
        return not (nearest & head or whole)

    def _nearest(
        self, texts: Floats, cues: Sequence[Cue]
    ) -> tuple[Places, Floats, NDArray[np.bool_]]:
        """The nearest key of each text that it may be drawn to, how near it is, and whether one in
        a skin tone that the text does not tell of is nearer."""
        likeness = self._likeness(_codes(texts)) - self._faint
        told = np.array([words.toned(cue.said) for cue in cues])
        nearest, rows = likeness.argmax(1), np.arange(len(texts))
        misled = ~told & (nearest >= self._plain)
        nearest[misled] = likeness[misled, : self._plain].argmax(1)
        return nearest, likeness[rows, nearest], misled


def unit(vectors: Floats) -> Floats:
    """The vectors [N, K] at length 1."""
    length = np.sqrt(np.square(vectors).sum(1, keepdims=True))
    made: Floats = vectors / length
    return made


def _codes(vectors: Floats) -> Floats:
    codes: Floats = np.rint(vectors * np.float32(CODES))
    return codes
