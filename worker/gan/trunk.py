"""The scorer's convolutions by torch, codes of 8 bits in and out: in int8, or in float32 that
holds the same integers, for a processor that multiplies int8 slowly or not exactly."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.gan import quantize, score, weightfile
from worker.gan.score import Codes, Tensors, Trunk

EXACT = 2**24  # below it float32 holds every integer


def usual(tensors: Tensors) -> Trunk:
    """In int8 where this processor can, else in float32."""
    return (int8 if quantize.supported() else float32)(tensors)


def int8(tensors: Tensors) -> Trunk:
    stages = [
        (
            quantize.packed(
                torch.from_numpy(tensors[f"{name}.weight"]),
                torch.from_numpy(tensors[f"{name}.bias"]),
            ),
            halved,
            step,
        )
        for name, halved, step in score.convolutions(tensors)
    ]

    @torch.inference_mode()
    def run(cells: Codes) -> Codes:
        given = torch.from_numpy(cells).contiguous(memory_format=torch.channels_last)
        maps = torch._make_per_tensor_quantized_tensor(given, 2 / score.LEVELS, score.ZERO)
        for layer, halved, step in stages:
            maps = F.max_pool2d(maps, 2) if halved else maps
            maps = torch.ops.quantized.conv2d_relu(maps, layer, step, 0)
        made: Codes = maps.int_repr().contiguous().numpy()
        return made

    return run


def float32(tensors: Tensors) -> Trunk:
    """Raises ValueError for weights whose sums float32 could not hold."""
    stages: list[tuple[Tensor, Tensor, Tensor, bool]] = []
    before = 2 / score.LEVELS
    for name, halved, step in score.convolutions(tensors):
        codes, scales = map(torch.from_numpy, weightfile.codes(tensors[f"{name}.weight"]))
        if codes.flatten(1).abs().sum(1).max().item() * score.LEVELS >= EXACT:
            raise ValueError(f"{name} sums to more than float32 holds exactly")
        bias = torch.from_numpy(tensors[f"{name}.bias"]) / step
        scale = scales * (before / step)
        stages.append((codes, scale[:, None, None], bias[:, None, None], halved))
        before = step

    @torch.inference_mode()
    def run(cells: Codes) -> Codes:
        maps = torch.from_numpy(cells).float() - score.ZERO
        for codes, scale, bias, halved in stages:
            maps = F.max_pool2d(maps, 2) if halved else maps
            sums = F.conv2d(maps, codes, padding=1)
            maps = (sums * scale + bias).clamp(0, score.LEVELS).round()
        made: Codes = maps.to(torch.uint8).numpy()
        return made

    return run
