"""The scorer's network: what a small picture shows and what a text says, in one space, and the
chance that they belong together. Tensors in, tensors out."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from worker.gan import score
from worker.gan.networks import TEXT, block

WIDTHS = (32, 64, 128)
SHARED = 192  # components of the space


class Eye(nn.Module):
    """Cells [B, 12, 16, 16] in [-1, 1] and unit texts [B, 384] to a logit [B]: `sharp`
    times the cosine of what is seen and what is said, plus `offset`. The logistic of it is the
    chance that this text belongs to this picture, one that was right half the time before."""

    def __init__(self, widths: Sequence[int] = WIDTHS, *, normed: bool = True) -> None:
        super().__init__()
        trunk: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise((score.CELLS, *widths)):
            trunk += [nn.MaxPool2d(2)] if trunk else []
            trunk += [block(inputs, outputs, normed=normed), block(outputs, outputs, normed=normed)]
        self.trunk = nn.Sequential(*trunk)
        self.out = nn.Linear(widths[-1], SHARED)
        self.say = nn.Linear(TEXT, SHARED)
        self.sharp = nn.Parameter(torch.tensor(10.0))
        self.offset = nn.Parameter(torch.tensor(-3.0))

    def seen(self, cells: Tensor) -> Tensor:
        """Unit vectors [B, 192] of pictures."""
        maps: Tensor = self.trunk(cells)
        return F.normalize(self.out(maps.mean((2, 3)) + maps.amax((2, 3))), dim=1)

    def said(self, text: Tensor) -> Tensor:
        """Unit vectors [B, 192] of texts."""
        return F.normalize(self.say(text * math.sqrt(TEXT)), dim=1)

    def logit(self, cosine: Tensor) -> Tensor:
        return self.sharp * cosine + self.offset

    def forward(self, cells: Tensor, text: Tensor) -> Tensor:
        return self.logit((self.seen(cells) * self.said(text)).sum(1))


def fold(trained: Eye) -> Eye:
    """The same function without batch norms (as `folding.fold`)."""
    network = copy.deepcopy(trained).eval().requires_grad_(False)
    for part in network.trunk:
        if isinstance(part, nn.Sequential):
            layer, norm = part[0], part[1]
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                part[0], part[1] = fuse_conv_bn_eval(layer, norm), nn.Identity()
    return network
