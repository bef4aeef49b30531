"""What judges say together of pictures, each looked at in several sizes: one judge alone is easily
led astray by a drawing that is larger or smaller than those that it was taught by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.gan import judge, precision
from worker.gan.judge import Judge

SIZES = (1.0, 0.88, 0.78)  # of a drawing, beside its own
AT_ONCE = 64  # pictures


class Panel:
    """named: unit vectors [C, K] of all concepts, those of J judges behind one another (K = 384 J),
    so that the cosine of a picture's and a concept's is the mean of what the judges find."""

    def __init__(self, judges: Sequence[Judge]) -> None:
        self._judges = judges
        self.named = _together([one.named for one in judges])

    @torch.inference_mode()
    def vectors(self, pictures: Tensor) -> Tensor:
        """Unit vectors [N, K] of pictures [N, 3, 64, 64], uint8 or in [0, 1]."""

        def seen(part: Tensor) -> Tensor:
            sizes = [_sized(part, size) for size in SIZES]
            with precision.autocast():  # as they were taught
                looked = [[one(each).float() for each in sizes] for one in self._judges]
            return _together(list(map(_mean, looked)))

        return _by_parts(seen, pictures)

    @torch.inference_mode()
    def features(self, pictures: Tensor) -> Tensor:
        """Features [N, 1280 J] of pictures [N, 3, 64, 64], uint8 or in [0, 1], as they are."""

        def seen(part: Tensor) -> Tensor:
            return torch.cat([one.features(part) for one in self._judges], dim=1)

        return _by_parts(seen, pictures)

    @torch.inference_mode()
    def dyed_ranks(self, pictures: Tensor, concept: Tensor, colour: Tensor) -> Tensor:
        """For pictures [N, 3, 64, 64]: how many of all names, each as it is drawn and in every
        paint, fit better than the right one: concept [N] in colour [N], the number of a paint from
        1. The judges' odds are multiplied."""
        found = []
        parts = (torch.split(each, AT_ONCE) for each in (pictures, concept, colour))
        for part, own, paint in zip(*parts, strict=True):
            looks = [_sized(_unit(part), size) for size in SIZES]
            named, dyed = _mean_odds([one.odds(look) for one in self._judges for look in looks])
            both = named[:, :, None] + dyed[:, None]
            right = both[torch.arange(len(part)), own, paint]
            found.append((both > right[:, None, None]).sum((1, 2)))
        return torch.cat(found)


def read(folders: Sequence[Path]) -> Panel:
    """The judges that are kept in folders."""
    return Panel([judge.load(folder) for folder in folders])


def ranks(seen: Tensor, named: Tensor, wanted: Tensor) -> Tensor:
    """For vectors [N, K] of pictures: how many of the named [C, K] are closer than the right one,
    wanted [N]."""
    close = seen @ named.T
    return (close > close.gather(1, wanted[:, None])).sum(1)


def _sized(pictures: Tensor, size: float) -> Tensor:
    """Pictures [N, 3, S, S] with what they show at another size, on white."""
    if size == 1:
        return pictures
    turn = torch.tensor([[1 / size, 0, 0], [0, 1 / size, 0]]).expand(len(pictures), 2, 3)
    grid = F.affine_grid(turn, list(pictures.shape), align_corners=False)
    made: Tensor = 1 - F.grid_sample(1 - pictures, grid, align_corners=False)
    return made.contiguous(memory_format=torch.channels_last)


def _by_parts(look: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    return torch.cat([look(_unit(part)) for part in torch.split(pictures, AT_ONCE)])


def _unit(pictures: Tensor) -> Tensor:
    full = pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures
    made: Tensor = full.contiguous(memory_format=torch.channels_last)
    return made


def _mean(vectors: Sequence[Tensor]) -> Tensor:
    found: Tensor = F.normalize(torch.stack(list(vectors)).mean(0), dim=1)
    return found


def _together(vectors: Sequence[Tensor]) -> Tensor:
    found: Tensor = torch.cat(list(vectors), dim=1) / len(vectors) ** 0.5
    return found


def _mean_odds(odds: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    named, dyed = zip(*odds, strict=True)
    return torch.stack(named).mean(0), torch.stack(dyed).mean(0)
