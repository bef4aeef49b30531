"""Static int8: observes the activation ranges of a folded generator and adapts its weights to
them. `worker.gan.integers` runs the result. Knows no files."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.gan import losses
from worker.gan.folding import layers
from worker.gan.networks import Generator

LEVELS = 255
STAGES = ("input", "map", "seed", "at4", "at8", "at16", "at32", "at32b")
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


def plainly(network: Generator) -> Callable[[Tensor], Tensor]:
    """A generator's own pictures, as `FloatGenerator` gives them but without any clipping."""

    @torch.inference_mode()
    def render(conditions: Tensor) -> Tensor:
        made: Tensor = network(conditions)
        return (made.clamp(0, 1) * LEVELS).round().to(torch.uint8)

    return render
