"""What compression makes of emoji-gan: images per second, size and closeness of its forms (the
network in float32 as it was trained, folded, in bfloat16, in int8 by torch and by ONNX Runtime,
the student, the student in both int8), for the network alone and from prompt text to pixels,
on one thread at batch 8. All forms take turns in each round; the median of the rounds
counts. With a judge and the training set also how well each form draws what it is asked for,
and how far its pictures are from real ones as a set."""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.report import Figure, show
from worker.compress import graph, runtime
from worker.gan import (
    agreement,
    asking,
    colours,
    conditioner,
    folding,
    integers,
    lexicon,
    measure,
    panel,
    quantize,
    weightfile,
    weights,
)
from worker.gan.encoder import TextEncoder
from worker.gan.networks import NOISE, Generator, condition
from worker.generators.gan import STUDENT, WEIGHTS

BATCH = 8
ROUNDS, QUICK_ROUNDS = 40, 8
EVERY = 2  # of so many taught names the judge is shown one: all forms in ten minutes of one core
LOSS = 0.03  # of agreement, that the student in int8 may have beside the teacher
Render = Callable[[Tensor], Tensor]  # conditions [B, 416] -> pixels uint8 [B, 3, 64, 64]
Read = Callable[[Sequence[str]], Tensor]


def prompts(number: int) -> list[str]:
    """Eight prompts that no other number has, each of which names a colour."""
    paints = list(colours.PAINTS)[:BATCH]
    return [f"a {paint} rocket, number {number} {i}" for i, paint in enumerate(paints)]


def conditions(read: Read, texts: Sequence[str]) -> Tensor:
    text = read(texts)
    noise = torch.randn(len(texts), NOISE, generator=torch.Generator().manual_seed(0))
    return condition(text, torch.arange(len(texts)) % 3, noise)


def bfloat16(plain: Generator) -> Render:
    network = copy.deepcopy(plain).to(torch.bfloat16)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def run(given: Tensor) -> Tensor:
        made: Tensor = network(given.bfloat16()).float()
        return (made.clamp(0, 1) * 255).round().to(torch.uint8)

    return run


def onnx(folder: Path) -> Render:
    network = runtime.OnnxGenerator(weightfile.read(folder))
    return lambda given: torch.from_numpy(network(given.numpy())).permute(0, 3, 1, 2)


def forms(
    teacher: weights.Shipped, student: weights.Shipped, calibration: Tensor, folder: Path
) -> dict[str, Render]:
    """The first is the baseline: batch norms, float32, the layout that torch gives."""
    trained = folding.unfold(teacher.generator, calibration)
    plain, small = teacher.generator, student.generator
    return {
        "float32 eager": quantize.plainly(trained),
        "float32 folded": quantize.FloatGenerator(plain, teacher.ranges, rows=BATCH),
        "bfloat16": bfloat16(plain),
        "int8": integers.IntegerGenerator(plain, teacher.ranges),
        "int8 onnx": onnx(folder),
        "student float32": quantize.plainly(small),
        "student int8": integers.IntegerGenerator(small, student.ranges),
        "student int8 onnx": onnx(folder / STUDENT),
    }


def seconds(calls: dict[str, Callable[[int], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of processor time of each call in each round, the calls in turn, each given a
    number of its own. On one thread that is the wall clock of an idle machine."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    fresh = count()
    for turn in range(rounds + 2):
        for name, call in calls.items():
            number = next(fresh)
            begun = time.process_time()
            call(number)
            if turn > 1:  # the first two warm up
                spent[name].append(time.process_time() - begun)
    return spent


def speedups(spent: dict[str, list[float]]) -> dict[str, float]:
    """How many times faster than the first in the same round: the median of the ratios."""
    base = next(iter(spent.values()))
    return {
        name: statistics.median(b / own for b, own in zip(base, each, strict=True))
        for name, each in spent.items()
    }


def drawing(encoder: TextEncoder, render: Render, texts: Sequence[str]) -> NDArray[np.uint8]:
    """What the worker makes of prompts: pixels [B, 64, 64, 3]."""
    asked = [asking.asked(text, encoder.naming) for text in texts]
    plain = [one for each in asked for one in each.texts]
    made = render(conditions(lambda given: torch.from_numpy(encoder.encode(given)), plain))
    pixels = made.permute(0, 2, 3, 1).contiguous().numpy()
    return colours.painted(pixels, [one for each in asked for one in each.colours])


def by_eights(render: Render) -> agreement.Draw:
    """The form as what the judge is shown pictures of."""
    return lambda given: (
        torch.cat([render(part) for part in torch.split(given, BATCH)]).float() / 255
    )


def judged(
    drawn: dict[str, Render], judges: Sequence[Path], data: Path, encoder: TextEncoder
) -> list[Figure]:
    """What judges say of each form, whose first is the baseline."""
    given, seen = lexicon.lessons(data, encoder, seed=1), panel.read(judges)
    draws = {name: by_eights(render) for name, render in drawn.items()}
    told = agreement.compared(draws, seen, given, every=EVERY)
    least = next(iter(told.values()))["rank5"] - LOSS
    found = []
    for name, each in told.items():
        aim = least if name == "student int8" else None
        found.append(Figure(f"{name}, rank 5", each["rank5"], "of 1", aim))
        found.append(Figure(f"{name}, Fréchet distance", each["frechet"], "", better="lower"))
    return found


def made_by(folder: Path, encoder: TextEncoder) -> tuple[dict[str, Render], Tensor]:
    """The forms of the weights in a folder, and conditions [8, 416] to try them with."""
    given = conditions(lambda texts: torch.from_numpy(encoder.encode(texts)), prompts(0))
    return forms(weights.read(folder), weights.read(folder / STUDENT), given, folder), given


def figures(
    rounds: int, folder: Path, drawn: dict[str, Render], given: Tensor, encoder: TextEncoder
) -> list[Figure]:
    large_encoder, eager = conditioner.Conditioner(), next(iter(drawn))

    def worked(name: str, texts: Sequence[str]) -> None:
        if name == eager:
            drawn[name](conditions(large_encoder.encode, texts))
        else:
            drawing(encoder, drawn[name], texts)

    alone = seconds({n: lambda _, f=f: f(given) for n, f in drawn.items()}, rounds)  # type: ignore[misc]
    whole = seconds(
        {name: lambda k, name=name: worked(name, prompts(k)) for name in drawn},  # type: ignore[misc]
        rounds,
    )
    truth = drawn["float32 eager"](given)
    files = {"int8": folder, "student int8": folder / STUDENT}
    sizes = {name: (place / weightfile.NETWORK).stat().st_size for name, place in files.items()}
    sizes |= {f"{n} onnx": len(graph.build(weightfile.read(f))) for n, f in files.items()}
    found = []
    for what, spent in (("network", alone), ("text to pixels", whole)):
        times = speedups(spent)
        for name, each in spent.items():
            rate = BATCH / statistics.median(each)
            found.append(Figure(f"{what}, {name}", rate, "images/s"))
            aim = (
                {"network": 20.0, "text to pixels": 10.0}[what] if name == "student int8" else None
            )
            found.append(Figure(f"{what}, {name}, speed-up", times[name], "times", aim))
    for name, render in drawn.items():
        if name != "float32 eager":
            found.append(
                Figure(f"{name}, PSNR to float32", measure.closeness(render(given), truth), "dB")
            )
    for name in files:
        close = measure.closeness(drawn[f"{name} onnx"](given), drawn[name](given))
        found.append(Figure(f"{name} onnx, PSNR to {name}", close, "dB"))
    for name, size in sizes.items():
        aim = 4.0 if name.startswith("student") else None
        found.append(Figure(f"{name}, file", size / 1e6, "MB", aim, "lower"))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--judge", type=Path, nargs="+", help="folders of judges, with --data")
    parser.add_argument("--data", type=Path, help="the training set, with --judge")
    options = parser.parse_args(arguments)
    if bool(options.judge) != bool(options.data):
        parser.error("--judge and --data go together")
    torch.set_num_threads(1)
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    settings: dict[str, int | str] = {"batch": BATCH, "rounds": rounds}
    if not integers.supported():
        settings["int8"] = "held in float32: this processor has no VNNI"
    encoder = TextEncoder(options.weights)
    drawn, given = made_by(options.weights, encoder)
    print(__doc__)
    found = figures(rounds, options.weights, drawn, given, encoder)
    if options.judge:
        found += judged(drawn, options.judge, options.data, encoder)
        settings["agreement"] = f"one in {EVERY} of the names that training saw, one seed"
    show("compress", found, **settings)


if __name__ == "__main__":
    main()
