"""Turns a training run into the weights that ship: `python -m worker.gan.export`. Folds the
norms, observes the ranges of int8, adapts the weights to them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from promptmill import errors
from worker import command
from worker.gan import (
    batches,
    checkpoint,
    folding,
    integers,
    lexicon,
    manifest,
    quantize,
    weights,
)
from worker.gan.checkpoint import TENSORS
from worker.gan.encoder import TextEncoder
from worker.gan.lexicon import Lessons
from worker.gan.manifest import Figure
from worker.gan.networks import Generator, Widths, condition
from worker.gan.quantize import Ranges

UNSEEN = 10**7  # the first step of batches that no training run reaches
MEASURED = 10**6  # added to it: the first of the batches that only measure
AVERAGE = "average."


def export(
    run: Path, given: Lessons, folder: Path, *, steps: int, coded: bool = False
) -> weights.Shipped:
    """A run's averaged generator as shipped weights: fold, observe, adapt in `steps`; `coded`
    as in `weights.write`. Raises `errors.Error` where there is no checkpoint."""
    plain, step = folded(run), checkpoint.step_of(run)
    adapted, ranges = quantized(plain, given, steps=steps)
    weights.write(folder, adapted, ranges, step=step, coded=coded)
    shipped = weights.read(folder)
    manifest.write(
        folder,
        "export",
        made=weights.FILES,
        source={checkpoint.TENSORS: manifest.digest(run / checkpoint.TENSORS)},
        settings={"step": step, "adapt": steps, "coded": coded},
        figures=figures(shipped, plain, given),
    )
    return shipped


def quantized(plain: Generator, given: Lessons, *, steps: int) -> tuple[Generator, Ranges]:
    """A folded generator adapted to int8 in `steps`, and the ranges of its stages."""
    ranges = quantize.observe(plain, _conditions(given, range(4)))
    return quantize.adapt(plain, ranges, _conditions(given, range(4, 4 + steps))), ranges


def figures(shipped: weights.Shipped, source: Generator, given: Lessons) -> dict[str, Figure]:
    """What a manifest says of weights made from the folded generator `source`: their pictures
    beside its own, clipped in float and in int8."""
    seen = unseen(given)
    truth = quantize.plainly(source)
    clipped = quantize.FloatGenerator(shipped.generator, shipped.ranges, rows=32)
    small = integers.IntegerGenerator(shipped.generator, shipped.ranges)
    return {
        "parameters": manifest.parameters(shipped.generator),
        "psnr_float32": manifest.closeness(clipped, truth, seen),
        "psnr_int8": manifest.closeness(small, truth, seen),
    }


def unseen(given: Lessons) -> list[Tensor]:
    """Conditions [32, 416] that neither training nor quantization drew, to measure with."""
    return _conditions(given, range(MEASURED, MEASURED + 8))


def folded(run: Path) -> Generator:
    """The averaged generator of a run without batch norms; one that started from shipped
    weights has none. Raises `errors.Error` where there is no checkpoint."""
    try:
        tensors = load_file(run / TENSORS)
    except (OSError, SafetensorError) as problem:
        raise errors.Error(
            f"no checkpoint of a run in {run}: make one with python -m worker.gan.train"
            f" or worker.compress.student, --out {run}"
        ) from problem
    state = {k.removeprefix(AVERAGE): v for k, v in tensors.items() if k.startswith(AVERAGE)}
    average = (
        Generator(_widths(state), normed="at4.1.running_mean" in state).eval().requires_grad_(False)
    )
    average.load_state_dict(state)
    return folding.fold(average) if "at4.1.running_mean" in state else average


def _widths(state: Mapping[str, Tensor]) -> Widths:
    """The channel counts that a run's tensors have."""
    outputs = {name: len(state[f"{name}.0.weight"]) for name in ("map", "at4", "at8", "at16")}
    return Widths(
        hidden=outputs["map"],
        at4=outputs["at4"],
        at8=outputs["at8"],
        at16=outputs["at16"],
        at32=state["pixels.weight"].shape[1],
        detail=len(state["detail.0.weight"]) // 64,
    )


def _conditions(given: Lessons, numbers: range) -> list[Tensor]:
    """Conditions [32, 416] of drawn batches that training never saw."""
    drawn = (batches.draw(given, batches.Plan(jitter=0.05), UNSEEN + k) for k in numbers)
    return [condition(one.text, one.vendor, one.noise) for one in drawn]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Turn a training run into shipped weights.")
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--run", type=Path, default=Path("data/run"))
    parser.add_argument("--out", type=Path, default=Path("worker/weights/emoji-gan"))
    parser.add_argument("--adapt", type=int, default=250, help="steps of adapting to int8")
    parser.add_argument("--encoder", type=Path, default=Path("worker/weights/emoji-gan"))
    parser.add_argument("--coded", action="store_true", help="weights as 8-bit codes")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    given = lexicon.lessons(options.data, TextEncoder(options.encoder), seed=batches.Plan().seed)
    shipped = export(options.run, given, options.out, steps=options.adapt, coded=options.coded)
    print(f"{options.out}: digest {shipped.digest}")


if __name__ == "__main__":
    command.run(main)
