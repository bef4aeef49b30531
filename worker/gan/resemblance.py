"""How alike two pictures look to a network that knows photographs: what a difference of pixels
cannot tell, whether a stroke that is a pixel off is still the stroke."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.gan import lite, losses
from worker.gan.train import Distance

LOOKS = (5, 8, 12)  # steps after which its maps are compared: 4, 8 and 16 pixels a cell
WEIGHT = 0.2  # beside the reconstruction's 1
LEAST = 1e-3  # a length below which a place counts as empty


class Resemblance:
    """A perceptual loss (Johnson et al. 2016, eq. 2; the channels of a place brought to length one
    as in Zhang et al. 2018, eq. 1, with all weights 1). `network` is frozen."""

    def __init__(self, network: nn.Sequential) -> None:
        self._steps = list(network.eval().requires_grad_(False).children())[: LOOKS[-1]]

    def __call__(self, made: Tensor, real: Tensor) -> Tensor:
        """made, real: pictures [B, 3, 64, 64] in [0, 1]; gradients go to `made` alone. The squared
        distance of the maps, summed over looks and averaged over places."""
        with torch.no_grad():
            wanted = self._looks(real)
        parts = zip(self._looks(made), wanted, strict=True)
        return torch.stack([(one - other).square().sum(1).mean() for one, other in parts]).sum()

    def _looks(self, pictures: Tensor) -> list[Tensor]:
        maps = (pictures * 2 - 1).contiguous(memory_format=torch.channels_last)
        found = []
        for number, step in enumerate(self._steps, start=1):
            maps = step(maps)
            if number in LOOKS:
                found.append(F.normalize(maps, dim=1, eps=LEAST))
        return found


def beside_reconstruction(folder: Path, device: str = "cpu") -> Distance:
    """`losses.reconstruction` and, beside it, the resemblance that EfficientNet-Lite1 finds, whose
    weights are kept in `folder`, for pictures on the device. Raises `errors.Error` when they
    cannot be had."""
    resemblance = Resemblance(lite.taught(folder, lite.LITE1).to(device))
    return lambda made, real: losses.reconstruction(made, real) + WEIGHT * resemblance(made, real)
