"""Static int8: observes the activation ranges of a folded generator, adapts its weights to
them and runs the result. Integer sums are exact, so
a picture's bytes do not depend on its batch. Knows no files."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.gan import cells, doubling, losses
from worker.gan.folding import layers
from worker.gan.inputs import CONDITION
from worker.gan.networks import Generator, double
from worker.gan.traced import traced

LEVELS = 255
STAGES = ("input", "map", "seed", "at4", "at8", "at16", "at32", "at32b")
DOUBLED = {"at16": 8, "at32": 16}  # convolutions of a map that is doubled, and its side
CUTS = (0.5, 0.75, 0.9, 0.95, 0.98, 1.0)  # quantiles of the rows' greatest values
Ranges = Mapping[str, tuple[float, float]]  # stage -> least and greatest value


@torch.no_grad()
def observe(plain: Generator, batches: Sequence[Tensor]) -> dict[str, tuple[float, float]]:
    """The range of each stage over conditions [B, 416]: of several cuts the one that moves
    the pictures least when that stage alone is rounded. A few pictures drive a stage to ten
    times what the rest needs and lose nothing when cut, so a range that covers them all
    would waste its levels. `at4` also holds `detail`: they are concatenated and so share
    one scale."""
    conditions = torch.cat(list(batches))
    truth = plain(conditions).clamp(0, 1)
    found = {}
    for stage in STAGES:
        peaks, low = _extremes(plain, stage, conditions)
        cuts = [(low, peaks.quantile(part).item()) for part in CUTS]
        errors = [
            (_rounded(plain, stage, conditions, ends=ends) - truth).square().mean().item()
            for ends in cuts
        ]
        found[stage] = cuts[errors.index(min(errors))]
    return found


def _of_stage(plain: Generator, stage: str) -> list[nn.Module]:
    known = layers(plain)
    return [known[stage], known["detail"]] if stage == "at4" else [known[stage]]


def _extremes(plain: Generator, stage: str, conditions: Tensor) -> tuple[Tensor, float]:
    """The greatest value of each row [B] at a stage, and the least of all."""
    if stage == "input":
        peaks = conditions.abs().amax(1)
        return peaks, -peaks.quantile(0.9).item()
    peaks = torch.zeros(len(conditions))

    def see(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        torch.maximum(peaks, output.flatten(1).amax(1), out=peaks)

    handles = [layer.register_forward_hook(see) for layer in _of_stage(plain, stage)]
    plain(conditions)
    for handle in handles:
        handle.remove()
    return peaks, 0.0


def _rounded(
    plain: Generator, stage: str, conditions: Tensor, *, ends: tuple[float, float]
) -> Tensor:
    """The pictures when one stage is rounded to 8 bits between `ends`."""
    given = _round(conditions, *ends) if stage == "input" else conditions

    def cut(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        return _round(output, *ends)

    rounded = [] if stage == "input" else _of_stage(plain, stage)
    handles = [layer.register_forward_hook(cut) for layer in rounded]
    made: Tensor = plain(given).clamp(0, 1)
    for handle in handles:
        handle.remove()
    return made


def _round(values: Tensor, low: float, high: float) -> Tensor:
    step = max(high - low, 1e-8) / LEVELS
    zero = round(-low / step)
    return ((values / step).round().clamp(-zero, LEVELS - zero)) * step


def supported() -> bool:
    """Whether this processor multiplies int8 exactly and fast: it needs VNNI, because the
    older instructions saturate a sum of two products at 16 bits."""
    return "onednn" in torch.backends.quantized.supported_engines and bool(
        torch.cpu._is_vnni_supported()
    )


class Int8Generator:
    """A folded generator in static int8: activations per tensor, weights per channel."""

    def __init__(self, plain: Generator, ranges: Ranges) -> None:
        self.widths = plain.widths
        self._drawn = traced(_Int8(plain, ranges), torch.zeros(2, CONDITION))

    @torch.inference_mode()
    def __call__(self, conditions: Tensor) -> Tensor:
        """Conditions [B, 416] to pixels uint8 [B, 3, 64, 64]."""
        return self._drawn(conditions)


class _Int8(nn.Module):
    """Its steps. Pixels are the last convolution's own codes: its output scale is 1/255 with
    zero point 0, so the code of a value in [0, 1] is its byte and clamping costs nothing."""

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
            setattr(self, name, packed(weight, bias))

    def forward(self, conditions: Tensor) -> Tensor:
        w = self.widths
        codes = torch.quantize_per_tensor(
            conditions, self.scale["input"], self.zero["input"], torch.quint8
        )
        hidden = self._dense(codes, "map")
        features = self._dense(hidden, "seed").reshape(-1, w.at4, 4, 4)
        details = self._dense(hidden, "detail", "at4").reshape(-1, w.detail, 8, 8)
        features = self._beside(double(self._convolve(features, "at4")), details)
        features = self._convolve(features, "at8")
        for stage, side in DOUBLED.items():
            features = self._doubled(features, stage, side)
        features = self._convolve(features, "at32b")
        last = torch.ops.quantized.conv2d(
            features, self.pixels, self.scale["pixels"], self.zero["pixels"]
        )
        return cells.pixels(last)

    def _beside(self, one: Tensor, other: Tensor) -> Tensor:
        """Both sets of channels as one. They share a scale, so their codes are copied as
        they are, where `torch.cat` would turn them to floats and back."""
        first = self.widths.at4
        shape = [one.shape[0], first + self.widths.detail, 8, 8]
        made = _codes(shape, self.scale["at4"], self.zero["at4"])
        made[:, :first], made[:, first:] = one, other
        return made

    def _doubled(self, codes: Tensor, layer: str, side: int) -> Tensor:
        maps, outputs = self._convolve(codes, layer), getattr(self.widths, layer)
        shape = [codes.shape[0], outputs, 2 * side, 2 * side]
        made = _codes(shape, self.scale[layer], self.zero[layer])
        return doubling.together(maps, made, outputs=outputs, side=side)

    def _dense(self, codes: Tensor, layer: str, stage: str | None = None) -> Tensor:
        out: Tensor = torch.ops.quantized.linear_relu(
            codes, getattr(self, layer), self.scale[stage or layer], self.zero[stage or layer]
        )
        return out

    def _convolve(self, codes: Tensor, layer: str) -> Tensor:
        out: Tensor = torch.ops.quantized.conv2d_relu(
            codes, getattr(self, layer), self.scale[layer], self.zero[layer]
        )
        return out


def _codes(shape: list[int], scale: float, zero: int) -> Tensor:
    """An empty map of 8-bit codes, whose channels lie together in memory."""
    return torch._empty_affine_quantized(
        shape,
        scale=scale,
        zero_point=zero,
        dtype=torch.quint8,
        memory_format=torch.channels_last,
    )


def clipped(plain: Generator, ranges: Ranges, *, rounded: bool = False) -> Generator:
    """A copy of a folded generator whose stages saturate where int8 does, and round as it
    does if `rounded`. Rounding lets gradients through unchanged (Bengio et al. 2013,
    section 4); what is clipped passes none."""
    network = copy.deepcopy(plain)

    def cut(ends: tuple[float, float]) -> Any:
        def act(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            kept = output.clamp(*ends)
            return kept + (_round(kept, *ends) - kept).detach() if rounded else kept

        return act

    for stage in STAGES[1:]:
        for layer in _of_stage(network, stage):
            layer.register_forward_hook(cut(ranges[stage]))
    return network


def adapt(
    plain: Generator, ranges: Ranges, batches: Iterable[Tensor], *, rate: float = 2e-4
) -> Generator:
    """The folded generator after one step of quantization-aware training per batch of
    conditions [B, 416]: rounded and clipped, it learns to draw what it drew in float
    (Jacob et al. 2018, section 3). The rate falls to zero over the batches."""
    given = list(batches)
    student = clipped(plain, ranges, rounded=True).requires_grad_(True)
    optimizer = torch.optim.Adam(student.parameters(), rate, (0.9, 0.99))
    for number, conditions in enumerate(given):
        optimizer.param_groups[0]["lr"] = rate * (1 - number / len(given))
        with torch.no_grad():
            truth = plain(conditions).clamp(0, 1)
        made = student(conditions)
        # the square is for the few pixels where a clipped peak leaves a spot
        loss = losses.reconstruction(made, truth) + 10 * F.mse_loss(made, truth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    adapted = copy.deepcopy(plain)
    adapted.load_state_dict(student.state_dict())
    return adapted


class FloatGenerator:
    """A folded generator in float32, `rows` at a time, saturating where int8 does: float
    kernels choose their order of summation by batch shape and by the number of threads, so one
    row at a time, on one thread, is what frees it from its neighbours and its machine's load."""

    def __init__(self, plain: Generator, ranges: Ranges, *, rows: int = 1) -> None:
        self.rows = rows
        self.network = clipped(plain, ranges)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(self, conditions: Tensor) -> Tensor:
        """Conditions [B, 416] to pixels uint8 [B, 3, 64, 64]."""
        with one_thread() if self.rows == 1 else nullcontext():
            made = torch.cat([self.network(part) for part in torch.split(conditions, self.rows)])
        return (made.clamp(0, 1) * LEVELS).round().to(torch.uint8)


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it torch computes on the calling thread alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def drawing(plain: Generator, ranges: Ranges) -> Int8Generator | FloatGenerator:
    """A folded generator in int8 where this processor can, else in float32 and clipped alike: for
    work to which the last bit does not matter."""
    if supported():
        return Int8Generator(plain, ranges)
    return FloatGenerator(plain, ranges, rows=32)


def plainly(network: Generator) -> Callable[[Tensor], Tensor]:
    """A generator's own pictures, as `FloatGenerator` gives them but without any clipping."""

    @torch.inference_mode()
    def render(conditions: Tensor) -> Tensor:
        made: Tensor = network(conditions)
        return (made.clamp(0, 1) * LEVELS).round().to(torch.uint8)

    return render


def packed(weight: Tensor, bias: Tensor) -> Any:
    """The weights of a dense layer or of a 3x3 or 2x2 convolution in int8, one symmetric scale
    per output channel, in the engine's own layout."""
    torch.backends.quantized.engine = "onednn"
    scales = weight.flatten(1).abs().amax(1).clamp_min(1e-8) / 127
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the quantized dtypes are announced to leave
        codes = torch.quantize_per_channel(
            weight, scales, torch.zeros(len(scales), dtype=torch.int64), 0, torch.qint8
        )
        if weight.dim() == 2:
            return torch.ops.quantized.linear_prepack(codes, bias)
        return torch.ops.quantized.conv2d_prepack(codes, bias, [1, 1], [1, 1], [1, 1], 1)
