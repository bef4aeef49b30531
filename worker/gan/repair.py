"""Repair: the masked part of a picture drawn anew from its prompt, the rest untouched. The
generator knows pictures, not holes: it draws the prompt in every style, and what stands
outside the mask decides which drawing fills it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.gan.networks import NOISE, TEXT, VENDORS, vendor_code

if TYPE_CHECKING:
    Pixels = NDArray[np.uint8]


class Source(Protocol):
    """A picture with a hole: pixels uint8 [H, W, 3]; mask uint8 [H, W], 255 in the hole."""

    @property
    def pixels(self) -> Pixels: ...

    @property
    def mask(self) -> Pixels | None: ...


def fill(
    render: Callable[[Tensor], Tensor], conditions: Tensor, sources: Sequence[Source]
) -> Pixels:
    """Pictures uint8 [B, H, W, 3]: each source with its hole filled by the drawing of its
    condition [B, 416] that is closest to it outside. All in integers, so that a picture
    depends on its own row alone. Raises ValueError for a source without a mask."""
    drawn = [render(_still(conditions, vendor)) for vendor in range(len(VENDORS))]
    styles = torch.stack(drawn).permute(0, 1, 3, 4, 2).numpy()
    return np.stack([_best(styles[:, row], source) for row, source in enumerate(sources)])


def _still(conditions: Tensor, vendor: int) -> Tensor:
    """The same texts in one style, seen straight on: without noise."""
    count = len(conditions)
    code = vendor_code(torch.full((count,), vendor))
    return torch.cat([conditions[:, :TEXT], code, torch.zeros(count, NOISE)], dim=1)


def _best(drawn: Pixels, source: Source) -> Pixels:
    if source.mask is None:
        raise ValueError("a repair needs a mask")
    hole = source.mask[..., None] > 127
    gap = np.where(hole, 0, drawn.astype(np.int64) - source.pixels)
    nearest = int(np.square(gap).sum((1, 2, 3)).argmin())
    filled: Pixels = np.where(hole, drawn[nearest], source.pixels)
    return filled
