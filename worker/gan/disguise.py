"""Pictures as another hand might have drawn them. Pure functions of tensors and chance."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.gan.networks import SIDE

PLAIN = 0.1  # the share that stays as it is
FAITHFUL = 0.3  # how far the colours of those go that are told by them, beside 1
FAR = 0.25  # the share of which half the detail is seen


def half(pictures: Tensor) -> Tensor:
    """Pictures [B, 3, 64, 64] at 32x32; those that are that small already stay."""
    return F.avg_pool2d(pictures, 2) if pictures.shape[-1] == SIDE else pictures


def far(pictures: Tensor, chance: torch.Generator) -> Tensor:
    """Pictures [B, 3, S, S], some of them as one of two subjects in a picture shows them when it
    is enlarged: drawn half as large."""
    small = F.interpolate(F.avg_pool2d(pictures, 2), scale_factor=2.0, mode="bilinear")
    return torch.where(_dice(pictures, chance, 1, 1, 1) < FAR, small, pictures)


def disguise(pictures: Tensor, chance: torch.Generator, told: Tensor | None = None) -> Tensor:
    """Pictures [B, 3, S, S] in [0, 1] bent, with other outlines, in other colours, blurred or
    sharpened, partly covered; `chance` is a generator of their device. told: bool [B], those whose
    colours tell what they show, and change little."""
    reach = 1 - (1 - FAITHFUL) * (torch.zeros(1) if told is None else told).to(pictures)
    bold = _outlined(_bent(pictures, chance), chance)
    seen = _covered(_focused(_coloured(bold, chance, reach[:, None, None]), chance), chance)
    seen = seen + torch.randn(seen.shape, generator=chance, device=seen.device) * (
        0.05 * _dice(seen, chance, 1, 1, 1)
    )
    return torch.where(_dice(seen, chance, 1, 1, 1) < PLAIN, pictures, seen).clamp(0, 1)


def _dice(pictures: Tensor, chance: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(len(pictures), *shape, generator=chance, device=pictures.device)


def _bent(pictures: Tensor, chance: torch.Generator) -> Tensor:
    """Turned, scaled, stretched, sheared, moved, mirrored, and warped by a smooth field."""

    def around(middle: float, width: float, *shape: int) -> Tensor:
        return middle + width * (_dice(pictures, chance, *shape) - 0.5)

    angle, scale = around(0, 0.7), 1 / around(0.925, 0.55)
    flip = torch.where(_dice(pictures, chance) < 0.3, -1.0, 1.0)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    shift, wide, tall = around(0, 0.3, 2), around(1.05, 0.3), around(1.05, 0.3)
    shear = around(0, 0.4)
    rows = torch.stack([cos * flip * wide, (shear - sin) * tall, shift[:, 0]], 1)
    cols = torch.stack([sin * flip * wide, cos * tall, shift[:, 1]], 1)
    grid = F.affine_grid(torch.stack([rows, cols], 1), list(pictures.shape), align_corners=False)
    field = torch.randn(len(pictures), 2, 5, 5, generator=chance, device=pictures.device)
    field = field * (0.07 * _dice(pictures, chance, 1, 1, 1))
    warp = F.interpolate(field, pictures.shape[-2:], mode="bicubic", align_corners=True)
    grid = grid + warp.permute(0, 2, 3, 1)
    return 1 - F.grid_sample(1 - pictures, grid, align_corners=False)


def _outlined(seen: Tensor, chance: torch.Generator) -> Tensor:
    """Without thin dark lines, or with bolder ones."""
    pale = F.max_pool2d(seen, 3, 1, 1)
    paler = F.max_pool2d(pale, 3, 1, 1)
    bold = -F.max_pool2d(-seen, 3, 1, 1)
    choice = _dice(seen, chance, 1, 1, 1)
    seen = torch.where(choice < 0.6, bold, seen)
    return torch.where(choice < 0.3, pale, torch.where(choice < 0.45, paler, seen))


def _coloured(seen: Tensor, chance: torch.Generator, reach: Tensor) -> Tensor:
    """Shaded across, a few in grey, in other tints, brighter or darker. reach [B or 1, 1, 1]: how
    far it goes, 1 or less, in which case none is grey."""
    ticks = torch.linspace(-1, 1, seen.shape[-1], device=seen.device)
    slope = (_dice(seen, chance, 2, 1, 1) - 0.5) * 0.6
    ink = (1 - seen) * (1 + slope[:, :1] * ticks[:, None] + slope[:, 1:] * ticks)
    grey = (_dice(seen, chance, 1, 1, 1) < 0.06) & (reach[..., None] == 1)
    ink = torch.where(grey, ink.mean(1, keepdim=True), ink)
    mix = torch.eye(3, device=seen.device) + (_dice(seen, chance, 3, 3) - 0.5) * 0.5 * reach
    tinted = torch.einsum("bchw,bkc->bkhw", ink, mix)
    ink = torch.where(_dice(seen, chance, 1, 1, 1) < 0.7, tinted, ink)
    gamma = torch.exp((_dice(seen, chance, 1, 1, 1) - 0.5) * 0.9 * reach[..., None])
    return ((1 - ink).clamp(0, 1) + 1e-4) ** gamma


def _focused(seen: Tensor, chance: torch.Generator) -> Tensor:
    smooth = F.avg_pool2d(F.pad(seen, (1, 1, 1, 1), mode="replicate"), 3, 1)
    choice = _dice(seen, chance, 1, 1, 1)
    sharp = torch.where(choice < 0.5, 2 * seen - smooth, seen)
    return torch.where(choice < 0.35, smooth, sharp)


def _covered(seen: Tensor, chance: torch.Generator) -> Tensor:
    """Up to two boxes, white or of a colour."""
    ticks = torch.arange(seen.shape[-1], device=seen.device) / seen.shape[-1]
    for odds in (0.4, 0.3):
        middle, reach = _dice(seen, chance, 2, 1), 0.05 + 0.15 * _dice(seen, chance, 2, 1)
        inside = (ticks - middle).abs() < reach
        box = inside[:, None, 0, :, None] & inside[:, None, 1, None, :]
        box = box & (_dice(seen, chance, 1, 1, 1) < odds)
        white = _dice(seen, chance, 1, 1, 1) < 0.5
        paint = torch.where(white, 1.0, _dice(seen, chance, 3, 1, 1))
        seen = torch.where(box, paint, seen)
    return seen
