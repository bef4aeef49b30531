"""Repair: the masked part of a picture drawn anew from its prompt, the rest untouched. The
generator knows pictures, not holes: it draws the prompt in every style, and what stands
outside the mask decides which drawing fills it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from worker.gan.inputs import NOISE, TEXT, VENDORS, Floats, vendor_code

Pixels = NDArray[np.uint8]


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
    All in integers, so that a picture depends on its own row alone. Raises ValueError for a
    source without a mask."""
    styles = np.stack([render(_still(conditions, vendor)) for vendor in range(len(VENDORS))])
    return np.stack([_best(styles[:, row], source) for row, source in enumerate(sources)])


def _still(conditions: Floats, vendor: int) -> Floats:
    """The same texts in one style, seen straight on: without noise."""
    count = len(conditions)
    code = vendor_code(np.full(count, vendor))
    none = np.zeros((count, NOISE), dtype=np.float32)
    return np.concatenate([conditions[:, :TEXT], code, none], axis=1)


def _best(drawn: Pixels, source: Source) -> Pixels:
    if source.mask is None:
        raise ValueError("a repair needs a mask")
    hole = source.mask[..., None] > 127
    gap = np.where(hole, 0, drawn.astype(np.int64) - source.pixels)
    nearest = int(np.square(gap).sum((1, 2, 3)).argmin())
    filled: Pixels = np.where(hole, drawn[nearest], source.pixels)
    return filled
