"""What becomes of an item that was to be rendered: a picture, or a fault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptmill.jobs import Item
from worker.generators.base import Input

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at an item. score: None when this seed could not be rendered."""

    seed: int
    score: float | None


@dataclass(frozen=True, slots=True)
class Picture:
    """One rendered item. pixels: uint8 [H, W, 3]; milliseconds: its share of the batch.
    item: as rendered, with the seed that was used. attempts: each that was made, where the
    item asks for a score."""

    item: Item
    pixels: NDArray[np.uint8]
    milliseconds: float
    fingerprint: str
    score: float | None = None
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """An item that the generator could not render, found alone."""

    code: str
    text: str


REJECTED = "rejected"  # code of a fault: a check refused the prompt or the picture
Outcome = Picture | Fault
Task = tuple[Item, Input | None]  # an item and what it starts from
