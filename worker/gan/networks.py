"""The generator and the discriminator as plain modules: tensors in, tensors out. Knows no
files, no devices and no text."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.gan import inputs

TEXT, NOISE, SIDE = inputs.TEXT, inputs.NOISE, inputs.SIDE
VENDORS, VENDOR_CODE = inputs.VENDORS, inputs.VENDOR_CODE


@dataclass(frozen=True, slots=True)
class Widths:
    """Channel counts, all multiples of 32 (aligned int8 kernels run 1.4 times faster)."""

    hidden: int = 512
    at4: int = 384
    at8: int = 256
    at16: int = 160
    at32: int = 96
    detail: int = 32


def condition(text: Tensor, vendor: Tensor, noise: Tensor) -> Tensor:
    """The generator's input [B, 416] from unit-length text [B, 384], vendor index [B] and
    noise [B, 16].

    All components are brought to about unit variance, because one int8 scale quantizes the
    whole vector: a unit vector in 384 dimensions has components of 1/sqrt(384). Noise is
    clipped at 3 for the same reason.
    """
    return torch.cat(
        [text * math.sqrt(TEXT), vendor_code(vendor).to(text), noise.clamp(-3, 3)], dim=1
    )


def vendor_code(vendor: Tensor) -> Tensor:
    """A fixed code [B, 16] of +1 where the vendor is, -1 where the others are, 0 where
    nobody is. The first linear layer turns it into what a learned embedding would be."""
    reach = VENDOR_CODE // len(VENDORS)
    hot = F.one_hot(vendor, len(VENDORS)).repeat_interleave(reach, dim=1)
    return F.pad(hot.float() * 2 - 1, (0, VENDOR_CODE - hot.shape[1]))


def block(inputs: int, outputs: int, *, normed: bool) -> nn.Sequential:
    """Convolution, batch norm and ReLU; without the norm, a biased convolution that the
    norm was folded into."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=not normed)
    norm = nn.BatchNorm2d(outputs) if normed else nn.Identity()
    return nn.Sequential(convolution, norm, nn.ReLU())


def double(features: Tensor) -> Tensor:
    """Nearest-neighbour upsampling: exact in int8, where bilinear and transposed
    convolutions are not."""
    return F.interpolate(features, scale_factor=2.0, mode="nearest")


class Generator(nn.Module):
    """One pass from a condition [B, 416] to pixels [B, 3, 64, 64] in [0, 1] (unclamped).

    The condition enters twice, as maps of 4x4 and of 8x8: dense layers are the cheapest
    memory a small network can have. The last step is sub-pixel (Shi et al. 2016, eq. 4): a
    convolution at 32x32 makes the four pixels of each cell, which costs a seventh of a
    convolution at 64x64.
    """

    def __init__(self, widths: Widths | None = None, *, normed: bool = True) -> None:
        super().__init__()
        w = self.widths = widths or Widths()
        self.map = nn.Sequential(nn.Linear(TEXT + VENDOR_CODE + NOISE, w.hidden), nn.ReLU())
        self.seed = nn.Sequential(nn.Linear(w.hidden, 16 * w.at4), nn.ReLU())
        self.detail = nn.Sequential(nn.Linear(w.hidden, 64 * w.detail), nn.ReLU())
        self.at4 = block(w.at4, w.at4, normed=normed)
        self.at8 = block(w.at4 + w.detail, w.at8, normed=normed)
        self.at16 = block(w.at8, w.at16, normed=normed)
        self.at32 = nn.Sequential(
            *block(w.at16, w.at32, normed=normed), *block(w.at32, w.at32, normed=normed)
        )
        self.pixels = nn.Conv2d(w.at32, 12, 3, padding=1)
        if self.pixels.bias is not None:
            nn.init.constant_(self.pixels.bias, 0.9)  # most of a picture is white paper

    def forward(self, conditions: Tensor) -> Tensor:
        w = self.widths
        hidden = self.map(conditions)
        features = self.at4(self.seed(hidden).reshape(-1, w.at4, 4, 4))
        details = self.detail(hidden).reshape(-1, w.detail, 8, 8)
        features = self.at8(torch.cat([double(features), details], dim=1))
        features = self.at32(double(self.at16(double(features))))
        return F.pixel_shuffle(self.pixels(features), 2)


class Verdict(NamedTuple):
    """logit [B]: how real, and how right for its caption; names: logits [B, C] of the concepts,
    None of a critic without the head."""

    logit: Tensor
    names: Tensor | None


class Discriminator(nn.Module):
    """The verdict on pixels [B, 3, 64, 64] in [0, 1] under text [B, 384] and vendor [B].

    A projection discriminator (Miyato and Koyama 2018, eq. 3): psi(phi(x)) + <E y, phi(x)>.
    No normalisation layers, so that R1 sees each sample alone. With `names` concepts, a linear
    head tells them by phi(x) alone (Odena et al. 2017).
    """

    def __init__(self, width: int = 48, names: int = 0) -> None:
        super().__init__()
        counts = (12, width, 2 * width, 4 * width, 6 * width)
        layers: list[nn.Module] = [nn.Conv2d(counts[0], counts[1], 3, padding=1)]
        for before, after in itertools.pairwise(counts[1:]):
            layers += [nn.LeakyReLU(0.2), nn.Conv2d(before, after, 4, stride=2, padding=1)]
        self.trunk = nn.Sequential(*layers, nn.LeakyReLU(0.2))
        self.feature = nn.Sequential(nn.Linear(16 * counts[-1], 256), nn.LeakyReLU(0.2))
        self.plain = nn.Linear(256, 1)
        self.embed = nn.Linear(TEXT + VENDOR_CODE, 256)
        self.names = nn.Linear(256, names) if names else None

    def forward(self, pixels: Tensor, text: Tensor, vendor: Tensor) -> Verdict:
        features = self.feature(self.trunk(F.pixel_unshuffle(pixels * 2 - 1, 2)).flatten(1))
        known = torch.cat([text * math.sqrt(TEXT), vendor_code(vendor).to(text)], dim=1)
        match = (self.embed(known) * features).sum(1) / math.sqrt(features.shape[1])
        logit: Tensor = self.plain(features).squeeze(1) + match
        return Verdict(logit, self.names(features) if self.names else None)
