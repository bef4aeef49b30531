"""Repair: the masked part of a picture drawn anew from its prompt, the rest untouched. The
generator knows pictures, not holes: it draws the prompt in every style, what stands outside the
mask decides which drawing fills it, and what they differ by at the edge is made up for inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from worker.gan.inputs import NOISE, TEXT, VENDORS, Floats, vendor_code

SWEEPS = 4  # at each size

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]  # True in the hole
Shift = NDArray[np.float64]


class Source(Protocol):
    """A picture with a hole: pixels uint8 [H, W, 3]; mask uint8 [H, W], 255 in the hole."""

    @property
    def pixels(self) -> Pixels: ...

    @property
    def mask(self) -> Pixels | None: ...


def fill(
    render: Callable[[Floats], Pixels], conditions: Floats, sources: Sequence[Source]
) -> Pixels:
    """Pictures uint8 [B, H, W, 3], the form of what `render` makes of conditions [B, 416]: each
    source with its hole filled by the drawing of its condition that is closest to it outside.
    Sums are of integers, all else goes by element, so that a picture depends on its own row
    alone. Raises ValueError for a source without a mask."""
    styles = np.stack([render(_still(conditions, vendor)) for vendor in range(len(VENDORS))])
    return np.stack([_repaired(styles[:, row], source) for row, source in enumerate(sources)])


def _still(conditions: Floats, vendor: int) -> Floats:
    """The same texts in one style, seen straight on: without noise."""
    count = len(conditions)
    code = vendor_code(np.full(count, vendor))
    none = np.zeros((count, NOISE), dtype=np.float32)
    return np.concatenate([conditions[:, :TEXT], code, none], axis=1)


def _repaired(drawn: Pixels, source: Source) -> Pixels:
    if source.mask is None:
        raise ValueError("a repair needs a mask")
    hole = source.mask[..., None] > 127
    gap = np.where(hole, 0, drawn.astype(np.int64) - source.pixels)
    nearest = int(np.square(gap).sum((1, 2, 3)).argmin())
    return _joined(drawn[nearest], source.pixels, hole)


def _joined(drawing: Pixels, pixels: Pixels, hole: Mask) -> Pixels:
    """The drawing in the hole [H, W, 1] of a picture, without a seam: it is shifted by what the
    picture differs from it around the hole, spread inwards."""
    shift = _spread(np.where(hole, 0.0, pixels.astype(np.float64) - drawing), hole)
    filled = np.clip(np.rint(drawing + shift), 0, 255).astype(np.uint8)
    joined: Pixels = np.where(hole, filled, pixels)
    return joined


def _spread(known: Shift, hole: Mask) -> Shift:
    """Numbers [H, W, 3] with those in the hole [H, W, 1] replaced by the mean of their neighbours
    on all sides, nearly: Laplace's equation, as in Pérez, Gangnet and Blake, "Poisson Image
    Editing" (2003), eq. 6, begun at half the size and swept there and here, red and black."""
    if not hole.any():
        return known
    spread = known
    if not any(side % 2 for side in hole.shape[:2]):
        count = _fours((~hole).astype(np.float64))
        coarse = _spread(_fours(known) / np.maximum(count, 1), count == 0)
        spread = np.where(hole, coarse.repeat(2, 0).repeat(2, 1), known)
    places = np.add.outer(*map(np.arange, hole.shape[:2]))[..., None]
    halves = [hole & (places % 2 == parity) for parity in (0, 1)]
    for half in halves * SWEEPS:
        edged = np.pad(spread, ((1, 1), (1, 1), (0, 0)), mode="edge")
        around = edged[:-2, 1:-1] + edged[2:, 1:-1] + edged[1:-1, :-2] + edged[1:-1, 2:]
        spread = np.where(half, around / 4, spread)
    return spread


def _fours(numbers: Shift) -> Shift:
    """Sums of squares of four: half as high and wide."""
    return numbers[::2, ::2] + numbers[1::2, ::2] + numbers[::2, 1::2] + numbers[1::2, 1::2]
