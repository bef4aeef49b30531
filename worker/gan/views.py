"""What the noise means: a small seeded view (shift, zoom, tint) of the one picture that a
caption has, so that seeds give siblings and not copies. Pure functions of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SHIFT = 0.06  # of half the picture: about two pixels each way
ZOOM = 0.08
TINT = 0.08


def view(pictures: Tensor, noise: Tensor) -> Tensor:
    """Pictures [B, 3, S, S] in [0, 1] seen as components 0 to 5 of the noise [B, 16] say:
    x and y shift, zoom, and the gain of each colour channel's ink. What moves in is white.
    """
    knobs = torch.tanh(noise[:, :6] / 2)
    scale = 1 + ZOOM * knobs[:, 2]
    zero = torch.zeros_like(scale)
    rows = torch.stack([scale, zero, SHIFT * knobs[:, 0]], 1)
    cols = torch.stack([zero, scale, SHIFT * knobs[:, 1]], 1)
    grid = F.affine_grid(torch.stack([rows, cols], 1), list(pictures.shape), align_corners=False)
    ink = F.grid_sample(1 - pictures, grid, align_corners=False, padding_mode="zeros")
    gain = 1 + TINT * knobs[:, 3:6, None, None]
    return (1 - ink * gain).clamp(0, 1)


def augment(pictures: Tensor, *, chance: Tensor, shift: Tensor, light: Tensor) -> Tensor:
    """Differentiable augmentation (Zhao et al. 2020) of [B, 3, S, S]: where chance [B] is
    below one half, a translation shift [B, 2] in [-1, 1] of an eighth of the picture and a
    brightness light [B] in [-1, 1] of a fifth. Used alike on real and made pictures."""
    on = (chance < 0.5).to(pictures.dtype)
    one = torch.ones_like(on)
    zero = torch.zeros_like(on)
    rows = torch.stack([one, zero, on * shift[:, 0] / 4], 1)
    cols = torch.stack([zero, one, on * shift[:, 1] / 4], 1)
    grid = F.affine_grid(torch.stack([rows, cols], 1), list(pictures.shape), align_corners=False)
    moved = 1 - F.grid_sample(1 - pictures, grid, mode="nearest", align_corners=False)
    return moved + (on * light / 5)[:, None, None, None]
