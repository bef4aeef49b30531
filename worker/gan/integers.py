"""A folded generator in static int8, whose sums are exact integers, so that a picture's bytes do
not depend on its batch: by int8 kernels, or in float32 that holds the same integers, for a
processor that multiplies int8 slowly or not exactly. Knows no files."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.gan import cells, doubling
from worker.gan.folding import layers
from worker.gan.inputs import CONDITION
from worker.gan.networks import Generator, double
from worker.gan.quantize import LEVELS, STAGES, Ranges
from worker.gan.traced import traced

DOUBLED = {"at16": 8, "at32": 16}  # convolutions of a map that is doubled, and its side
HELD = 2**24  # below it float32 holds every integer
Kernel = Callable[[Tensor, Tensor], Tensor]


def supported() -> bool:
    """Whether this processor multiplies int8 exactly and fast: it needs VNNI, because the
    older instructions saturate a sum of two products at 16 bits."""
    return "onednn" in torch.backends.quantized.supported_engines and bool(
        torch.cpu._is_vnni_supported()
    )


class IntegerGenerator:
    """Activations per tensor, weights per channel; by int8 kernels where this processor can, else
    in float32. Raises ValueError for weights whose sums float32 could not hold."""

    def __init__(self, plain: Generator, ranges: Ranges) -> None:
        self.widths = plain.widths
        steps = _Int8 if supported() else _Held
        self._drawn = traced(steps(plain, ranges), torch.zeros(2, CONDITION))

    @torch.inference_mode()
    def __call__(self, conditions: Tensor) -> Tensor:
        """Conditions [B, 416] to pixels uint8 [B, 3, 64, 64]."""
        return self._drawn(conditions)


class _Steps(nn.Module):
    """Pixels are the last convolution's own codes: its output scale is 1/255 with zero point 0, so
    the code of a value in [0, 1] is its byte and clamping costs nothing."""

    def __init__(self, plain: Generator, ranges: Ranges) -> None:
        super().__init__()
        self.widths = plain.widths
        self.scale, self.zero = {"pixels": 1 / LEVELS}, {"pixels": 0}
        for stage in STAGES:
            low, high = ranges[stage]
            self.scale[stage] = max(high - low, 1e-8) / LEVELS
            self.zero[stage] = round(-low / self.scale[stage])
        for name, layer in layers(plain).items():
            weight, bias = layer.weight.detach(), layer.bias.detach()  # type: ignore[operator]
            if name in DOUBLED:
                weight, bias = doubling.kernels(weight), bias.repeat(4)
            elif name == "pixels":
                weight, bias = cells.ordered(weight), cells.ordered(bias)
            self.keep(name, weight, bias)

    def forward(self, conditions: Tensor) -> Tensor:
        w = self.widths
        codes = torch.quantize_per_tensor(
            conditions, self.scale["input"], self.zero["input"], torch.quint8
        )
        hidden = self.dense(self.given(codes), "map", "input", "map")
        features = self.dense(hidden, "seed", "map", "seed").reshape(-1, w.at4, 4, 4)
        details = self.dense(hidden, "detail", "map", "at4").reshape(-1, w.detail, 8, 8)
        features = self._beside(double(self.convolve(features, "at4", "seed")), details)
        features, before = self.convolve(features, "at8", "at4"), "at8"
        for stage, side in DOUBLED.items():
            maps, outputs = self.convolve(features, stage, before), getattr(w, stage)
            made = self.empty([conditions.shape[0], outputs, 2 * side, 2 * side], stage)
            features = doubling.together(maps, made, outputs=outputs, side=side)
            before = stage
        features = self.convolve(features, "at32b", "at32")
        return cells.pixels(self.bytes(self.convolve(features, "pixels", "at32b")))

    def _beside(self, one: Tensor, other: Tensor) -> Tensor:
        """Both sets of channels as one. They share a scale, so their codes are copied as
        they are, where `torch.cat` would turn them to floats and back."""
        first = self.widths.at4
        made = self.empty([one.shape[0], first + self.widths.detail, 8, 8], "at4")
        made[:, :first], made[:, first:] = one, other
        return made

    def keep(self, name: str, weight: Tensor, bias: Tensor) -> None:
        """A layer of that name."""
        raise NotImplementedError

    def given(self, codes: Tensor) -> Tensor:
        """Quantized conditions as the layers take them."""
        raise NotImplementedError

    def dense(self, codes: Tensor, layer: str, before: str, stage: str) -> Tensor:
        """The codes on the scale of `stage` that a layer makes of codes on that of `before`."""
        raise NotImplementedError

    def convolve(self, codes: Tensor, layer: str, before: str) -> Tensor:
        """The same of a convolution, on the scale of the stage that is called as it is."""
        raise NotImplementedError

    def empty(self, shape: list[int], stage: str) -> Tensor:
        """A map of codes to be filled, whose channels lie together in memory."""
        raise NotImplementedError

    def bytes(self, codes: Tensor) -> Tensor:
        """Codes as bytes, whose channels lie together in memory."""
        raise NotImplementedError


class _Int8(_Steps):
    """By torch's int8."""

    def keep(self, name: str, weight: Tensor, bias: Tensor) -> None:
        setattr(self, name, packed(weight, bias))

    def given(self, codes: Tensor) -> Tensor:
        return codes

    def dense(self, codes: Tensor, layer: str, before: str, stage: str) -> Tensor:
        made: Tensor = torch.ops.quantized.linear_relu(
            codes, getattr(self, layer), self.scale[stage], self.zero[stage]
        )
        return made

    def convolve(self, codes: Tensor, layer: str, before: str) -> Tensor:
        kernels = torch.ops.quantized
        kernel = kernels.conv2d if layer == "pixels" else kernels.conv2d_relu
        made: Tensor = kernel(codes, getattr(self, layer), self.scale[layer], self.zero[layer])
        return made

    def empty(self, shape: list[int], stage: str) -> Tensor:
        return torch._empty_affine_quantized(
            shape,
            scale=self.scale[stage],
            zero_point=self.zero[stage],
            dtype=torch.quint8,
            memory_format=torch.channels_last,
        )

    def bytes(self, codes: Tensor) -> Tensor:
        return codes


class _Held(_Steps):
    """In float32, in which the codes, their products and their sums are integers: the same in any
    order of summation, whatever the processor. What follows is done one operation after another,
    as oneDNN's int8 kernels for VNNI do it, and so has their roundings."""

    def keep(self, name: str, weight: Tensor, bias: Tensor) -> None:
        quantized = coded(weight)
        parts = held(quantized.int_repr().float(), signed=name == "map")
        layout = torch.channels_last if weight.dim() == 4 else torch.contiguous_format
        shape = [-1, *[1] * (weight.dim() - 2)]
        scales = quantized.q_per_channel_scales().float().reshape(shape)
        kernels = [part.contiguous(memory_format=layout) for part in parts]
        setattr(self, name, (kernels, scales, bias.reshape(shape)))

    def given(self, codes: Tensor) -> Tensor:
        return codes.int_repr().float() - self.zero["input"]

    def dense(self, codes: Tensor, layer: str, before: str, stage: str) -> Tensor:
        return self._rounded(F.linear, codes, layer, before, stage)

    def convolve(self, codes: Tensor, layer: str, before: str) -> Tensor:
        return self._rounded(_convolved, codes, layer, before, layer)

    def _rounded(
        self, kernel: Kernel, codes: Tensor, layer: str, before: str, stage: str
    ) -> Tensor:
        """The int8 kernels multiply by the inverse of what torch hands them, which is the inverse
        of a scale."""
        (first, *other), scales, bias = getattr(self, layer)
        reach = first.shape[1]
        sums = kernel(codes[:, :reach] if other else codes, first)
        if other:
            sums += kernel(codes[:, reach:], other[0])
        one = torch.ones(())
        inverse = one / (one / torch.tensor(1 / self.scale[stage]))
        made = sums.mul_(torch.tensor(self.scale[before])).mul_(scales).add_(bias)
        return made.mul_(inverse).round_().clamp_(0, LEVELS)

    def empty(self, shape: list[int], stage: str) -> Tensor:
        return torch.empty(shape, memory_format=torch.channels_last)

    def bytes(self, codes: Tensor) -> Tensor:
        return codes.to(torch.uint8, memory_format=torch.channels_last)


def _convolved(codes: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(codes, weight, padding=1)


def held(codes: Tensor, *, signed: bool = False) -> list[Tensor]:
    """The codes of weights [O, I, ...] in one part or two, by inputs, whose sums of products with 8
    bits float32 holds: the one sum of two parts is rounded as an integer is that becomes a float.
    signed: what they are multiplied with may be negative. Raises ValueError for larger ones."""
    for count in (1, 2):
        parts = list(codes.chunk(count, 1))
        if all(_reach(part, signed) * LEVELS < HELD for part in parts):
            return parts
    raise ValueError("weights sum to more than float32 holds exactly")


def _reach(codes: Tensor, signed: bool) -> float:
    """How far from 0 a sum of the codes of one output can get, with inputs in [0, 1]."""
    flat = codes.flatten(1)
    if signed:
        return flat.abs().sum(1).max().item()
    return max(flat.clamp_min(0).sum(1).max().item(), (-flat).clamp_min(0).sum(1).max().item())


def packed(weight: Tensor, bias: Tensor) -> Any:
    """The weights of a dense layer or of a 3x3 or 2x2 convolution in int8, in the engine's own
    layout."""
    torch.backends.quantized.engine = "onednn"
    codes = coded(weight)
    if weight.dim() == 2:
        return torch.ops.quantized.linear_prepack(codes, bias)
    return torch.ops.quantized.conv2d_prepack(codes, bias, [1, 1], [1, 1], [1, 1], 1)


def coded(weight: Tensor) -> Tensor:
    """Weights in int8, one symmetric scale per output channel."""
    scales = weight.flatten(1).abs().amax(1).clamp_min(1e-8) / 127
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the quantized dtypes are announced to leave
        return torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
