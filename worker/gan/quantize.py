"""Compression: folds the batch norms into the convolutions, observes activation ranges, and
runs the result in static int8. Integer sums are exact, so a picture's bytes do not depend
on its batch. Knows no files."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from worker.gan.networks import Generator, double

LEVELS = 255
STAGES = ("input", "map", "seed", "at4", "at8", "at16", "at32", "at32b")
Ranges = Mapping[str, tuple[float, float]]  # stage -> least and greatest value


def fold(generator: Generator) -> Generator:
    """The same function without batch norms: w' = w g / s, b' = beta - m g / s with the
    running mean m and deviation s (Jacob et al. 2018, section 3.2)."""
    trained = copy.deepcopy(generator).eval()
    plain = Generator(trained.widths, normed=False).eval().requires_grad_(False)
    for name in ("map", "seed", "detail", "pixels"):
        getattr(plain, name).load_state_dict(getattr(trained, name).state_dict())
    for name in ("at4", "at8", "at16", "at32"):
        old, new = getattr(trained, name), getattr(plain, name)
        for place in range(0, len(old), 3):
            fused = fuse_conv_bn_eval(old[place], old[place + 1])
            new[place].load_state_dict(fused.state_dict())
    return plain


def layers(plain: Generator) -> dict[str, nn.Module]:
    """The layers of a folded generator, named by the stage that their output is."""
    return {
        "map": plain.map[0],
        "seed": plain.seed[0],
        "detail": plain.detail[0],
        "at4": plain.at4[0],
        "at8": plain.at8[0],
        "at16": plain.at16[0],
        "at32": plain.at32[0],
        "at32b": plain.at32[3],
        "pixels": plain.pixels,
    }


@torch.no_grad()
def observe(plain: Generator, batches: Iterable[Tensor]) -> dict[str, tuple[float, float]]:
    """The range of each stage over conditions [B, 416], cut where the squared error of
    rounding and clipping is least. `at4` also holds `detail`: they are concatenated and so
    share one scale."""
    kept: dict[str, list[Tensor]] = {stage: [] for stage in STAGES}

    def keep(stage: str) -> Any:
        return lambda _module, _inputs, output: kept[stage].append(output.relu().flatten())

    hooks = [
        layer.register_forward_hook(keep("at4" if name == "detail" else name))
        for name, layer in layers(plain).items()
        if name != "pixels"
    ]
    for conditions in batches:
        kept["input"].append(conditions.flatten())
        plain(conditions)
    for hook in hooks:
        hook.remove()
    return {stage: _best_range(torch.cat(values)) for stage, values in kept.items()}


def _best_range(values: Tensor) -> tuple[float, float]:
    sample = values[:: max(1, len(values) // 400_000)]
    low, high = min(0.0, sample.min().item()), sample.max().item()
    fractions = [1 - 0.02 * k for k in range(36)]
    return min(
        ((low * part, high * part) for part in fractions),
        key=lambda ends: _rounding_error(sample, *ends),
    )


def _rounding_error(values: Tensor, low: float, high: float) -> float:
    step = max(high - low, 1e-8) / LEVELS
    rounded = ((values.clamp(low, high) - low) / step).round() * step + low
    return (rounded - values).square().mean().item()


def supported() -> bool:
    """Whether this processor multiplies int8 exactly and fast: it needs VNNI, because the
    older instructions saturate a sum of two products at 16 bits."""
    return "onednn" in torch.backends.quantized.supported_engines and bool(
        torch.cpu._is_vnni_supported()
    )


class Int8Generator:
    """A folded generator in static int8: activations per tensor, weights per channel.

    Pixels are the last convolution's own codes: its output scale is 1/255 with zero point
    0, so the code of a value in [0, 1] is its byte and clamping costs nothing.
    """

    def __init__(self, plain: Generator, ranges: Ranges) -> None:
        self.widths = plain.widths
        self.scale, self.zero = {"pixels": 1 / LEVELS}, {"pixels": 0}
        for stage in STAGES:
            low, high = ranges[stage]
            self.scale[stage] = max(high - low, 1e-8) / LEVELS
            self.zero[stage] = round(-low / self.scale[stage])
        torch.backends.quantized.engine = "onednn"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the quantized dtypes are announced to leave
            self._packed = {name: _pack(layer) for name, layer in layers(plain).items()}

    @torch.inference_mode()
    def __call__(self, conditions: Tensor) -> Tensor:
        """Conditions [B, 416] to pixels uint8 [B, 3, 64, 64]."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._run(conditions)

    def _run(self, conditions: Tensor) -> Tensor:
        w = self.widths
        codes = torch.quantize_per_tensor(
            conditions, self.scale["input"], self.zero["input"], torch.quint8
        )
        hidden = self._dense(codes, "map")
        features = self._dense(hidden, "seed").reshape(-1, w.at4, 4, 4)
        details = self._dense(hidden, "detail", "at4").reshape(-1, w.detail, 8, 8)
        features = double(self._convolve(features, "at4"))
        features = torch.cat([features, details], dim=1)
        for stage in ("at8", "at16"):
            features = double(self._convolve(features, stage))
        for stage in ("at32", "at32b"):
            features = self._convolve(features, stage)
        last = torch.ops.quantized.conv2d(
            features, self._packed["pixels"], self.scale["pixels"], self.zero["pixels"]
        )
        return torch.nn.functional.pixel_shuffle(last.int_repr().contiguous(), 2)

    def _dense(self, codes: Tensor, layer: str, stage: str | None = None) -> Tensor:
        out: Tensor = torch.ops.quantized.linear_relu(
            codes, self._packed[layer], self.scale[stage or layer], self.zero[stage or layer]
        )
        return out

    def _convolve(self, codes: Tensor, layer: str) -> Tensor:
        out: Tensor = torch.ops.quantized.conv2d_relu(
            codes, self._packed[layer], self.scale[layer], self.zero[layer]
        )
        return out


class FloatGenerator:
    """A folded generator in float32, `rows` at a time: float kernels choose their order of
    summation by batch shape, so one row at a time is what frees it from its neighbours."""

    def __init__(self, plain: Generator, *, rows: int = 1) -> None:
        self.rows = rows
        self.network = copy.deepcopy(plain)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(self, conditions: Tensor) -> Tensor:
        """Conditions [B, 416] to pixels uint8 [B, 3, 64, 64]."""
        made = torch.cat([self.network(part) for part in torch.split(conditions, self.rows)])
        return (made.clamp(0, 1) * LEVELS).round().to(torch.uint8)


def _pack(layer: nn.Module) -> Any:
    """The layer's int8 weights, one symmetric scale per output channel, in the engine's
    own layout."""
    weight, bias = layer.weight.detach(), layer.bias.detach()  # type: ignore[operator]
    scales = weight.flatten(1).abs().amax(1).clamp_min(1e-8) / 127
    codes = torch.quantize_per_channel(
        weight, scales, torch.zeros(len(scales), dtype=torch.int64), 0, torch.qint8
    )
    if isinstance(layer, nn.Linear):
        return torch.ops.quantized.linear_prepack(codes, bias)
    return torch.ops.quantized.conv2d_prepack(codes, bias, [1, 1], [1, 1], [1, 1], 1)
