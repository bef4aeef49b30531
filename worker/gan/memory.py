"""What a text is drawn towards: the nearest of the names of everything the generator knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PULL = np.float32(0.5)  # the name's share, beside 1 for the text itself
LEAD = np.float32(3)  # the same where a text begins with it
CODES = 2000  # of a component: sums of their products stay below 2**24

Floats = NDArray[np.float32]
Dense = Callable[[Floats], Floats]  # codes [N, K] -> their product with weights [K, M]


@dataclass(frozen=True, slots=True)
class Cue:
    """bare: a vector [K] of what the text is without what says how it looks, which decides where it
    is nearer to a name: "a yellow star" is nearest to a yellow circle, "star" to a star. leads: the
    name that the text begins with, before a comma; name: the one that it is, word for word."""

    bare: Floats | None = None
    leads: int | None = None
    name: int | None = None


class Memory:
    """An associative memory of unit vectors [M, K]: one step of retrieval at infinite sharpness
    (Ramsauer et al. 2021, eq. 3), of which a part is added. What people write around a name
    leads its vector away from where the generator learned the thing; this leads it back, and
    leaves part of what was said beside it.

    Bits: which name is nearest is decided by sums of integers that float32 holds exactly."""

    def __init__(self, names: Floats, *, dense: Callable[[Floats], Dense]) -> None:
        """dense: makes a product of its weights."""
        self._names = names
        self._likeness = dense(np.ascontiguousarray(_codes(names).T))

    def recalled(self, texts: Floats, cues: Mapping[int, Cue]) -> Floats:
        """Unit vectors [N, K] of texts [N, K], each nearer to the name it is nearest to. cues: of
        some rows what else is known."""
        nearest, likeness = self._nearest(texts)
        pull = np.full((len(texts), 1), PULL)
        self._compare(nearest, likeness, {r: c.bare for r, c in cues.items() if c.bare is not None})
        for row, cue in cues.items():
            if cue.leads is not None:
                nearest[row], pull[row] = cue.leads, LEAD
        found = unit(texts + pull * self._names[nearest])
        for row, cue in cues.items():
            if cue.name is not None:
                found[row] = self._names[cue.name]
        return found

    def _compare(
        self, nearest: NDArray[np.intp], likeness: Floats, bare: Mapping[int, Floats]
    ) -> None:
        """Puts others into `nearest` where these vectors are nearer to a name."""
        if bare:
            rows = np.array(list(bare))
            others, closer = self._nearest(np.stack(list(bare.values())))
            better = closer > likeness[rows]
            nearest[rows[better]] = others[better]

    def _nearest(self, texts: Floats) -> tuple[NDArray[np.intp], Floats]:
        likeness = self._likeness(_codes(texts))
        nearest = likeness.argmax(1)
        return nearest, likeness[np.arange(len(texts)), nearest]


def unit(vectors: Floats) -> Floats:
    """The vectors [N, K] at length 1."""
    length = np.sqrt(np.square(vectors).sum(1, keepdims=True))
    made: Floats = vectors / length
    return made


def _codes(vectors: Floats) -> Floats:
    codes: Floats = np.rint(vectors * np.float32(CODES))
    return codes
