"""The scorer's convolutions by torch, codes of 8 bits in and out: in int8, or in float32 that
holds the same integers, for a processor that multiplies int8 slowly or not exactly."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.gan import integers, score, weightfile
from worker.gan.score import Codes, Tensors, Trunk
from worker.gan.traced import traced

PARTS = ("weight", "bias")


def usual(tensors: Tensors) -> Trunk:
    """In int8 where this processor can, else in float32."""
    return (int8 if integers.supported() else float32)(tensors)


def int8(tensors: Tensors) -> Trunk:
    drawn = traced(_Int8(tensors), torch.zeros(2, score.CELLS, 16, 16, dtype=torch.uint8))

    @torch.inference_mode()
    def run(cells: Codes) -> Codes:
        made: Codes = drawn(torch.from_numpy(cells)).numpy()
        return made

    return run


class _Int8(nn.Module):
    """Cells [N, 12, 16, 16] to the last map, both uint8."""

    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        self.stages = []
        for number, (name, halved, step) in enumerate(score.convolutions(tensors)):
            weight, bias = (torch.from_numpy(tensors[f"{name}.{part}"]) for part in PARTS)
            setattr(self, f"layer{number}", integers.packed(weight, bias))
            self.stages.append((f"layer{number}", halved, step))

    def forward(self, cells: Tensor) -> Tensor:
        given = cells.contiguous(memory_format=torch.channels_last)
        maps = torch._make_per_tensor_quantized_tensor(given, 2 / score.LEVELS, score.ZERO)
        for layer, halved, step in self.stages:
            maps = F.max_pool2d(maps, 2) if halved else maps
            maps = torch.ops.quantized.conv2d_relu(maps, getattr(self, layer), step, 0)
        return maps.int_repr().contiguous()


def float32(tensors: Tensors) -> Trunk:
    """Raises ValueError for weights whose sums float32 could not hold."""
    stages: list[tuple[list[Tensor], Tensor, Tensor, bool]] = []
    before = 2 / score.LEVELS
    for name, halved, step in score.convolutions(tensors):
        codes, scales = map(torch.from_numpy, weightfile.codes(tensors[f"{name}.weight"]))
        parts = integers.held(codes, signed=not stages)
        bias = torch.from_numpy(tensors[f"{name}.bias"]) / step
        scale = scales * (before / step)
        stages.append((parts, scale[:, None, None], bias[:, None, None], halved))
        before = step

    @torch.inference_mode()
    def run(cells: Codes) -> Codes:
        maps = torch.from_numpy(cells).float() - score.ZERO
        for parts, scale, bias, halved in stages:
            maps = F.max_pool2d(maps, 2) if halved else maps
            maps = (_convolved(maps, parts) * scale + bias).clamp(0, score.LEVELS).round()
        made: Codes = maps.to(torch.uint8).numpy()
        return made

    return run


def _convolved(maps: Tensor, parts: Sequence[Tensor]) -> Tensor:
    given = torch.split(maps, [part.shape[1] for part in parts], 1)
    first, *others = (
        F.conv2d(some, part, padding=1) for some, part in zip(given, parts, strict=True)
    )
    return sum(others, first)
