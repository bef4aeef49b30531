"""The last map of an int8 network holds cells of four pixels: in which order its channels have to
lie, and how they become a picture with one copy. Pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from worker.gan.inputs import SIDE
from worker.gan.traced import scripted


def ordered(values: Tensor) -> Tensor:
    """The 12 outputs of a cell in the order in which its pixels lie in memory: by row, by
    column, by colour, where `F.pixel_shuffle` wants them by colour first."""
    return values.reshape(-1, 2, 2, *values.shape[1:]).movedim(0, 2).reshape(values.shape)


def pixels(codes: Tensor) -> Tensor:
    """The codes of cells [B, 12, 32, 32], in the order of `ordered`, as pixels [B, 3, 64, 64]; the
    channels of both lie together in memory. One copy, of six bytes at a time."""
    rows: Tensor = _halves(codes).transpose(2, 3).reshape(-1, SIDE, SIDE, 3)
    return rows.permute(0, 3, 1, 2)


@scripted
def _halves(codes: Tensor) -> Tensor:
    """Codes [B, 12, 32, 32] as bytes [B, 32, 32, 2, 6] where they lie: `int_repr` would copy
    them, one by one."""
    shape = [codes.size(0), 32, 32, 2, 6]
    lying = codes.permute(0, 2, 3, 1)
    made = torch.empty([0], dtype=torch.uint8)
    torch.ops.aten.set_(made, lying, 0, shape, [32 * 32 * 12, 32 * 12, 12, 6, 1])
    return made
