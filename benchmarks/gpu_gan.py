"""emoji-gan on this GPU: images per second of the network alone (numbers in, pictures in the
host's memory out) in float32 and bfloat16 as torch launches them and as one CUDA graph with
channels last, at several batch shapes; from prompt text to pixels, beside the text's part of
it; and how close the pictures are to float32's. All take turns in each round; the median of the
rounds counts.

    python -m benchmarks.gpu_gan [--quick]"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count

import numpy as np
import torch

from benchmarks.report import Figure, show
from promptmill import errors
from promptmill.jobs import Item
from worker.gan import cuda, measure, weights, words
from worker.gan.encoder import TextEncoder
from worker.gan.inputs import Floats
from worker.generators import device, gan
from worker.generators.base import Pixels

ROUNDS, QUICK_ROUNDS = 40, 8
SHAPES = (cuda.ROWS, 4 * cuda.ROWS)  # the product's own, and a larger one
FORMS = ("float32 eager", "bfloat16 eager", "bfloat16 graph")
Call = Callable[[int], object]  # given a number that no other call has


def networks(where: str) -> dict[str, Callable[[Floats], Pixels]]:
    """Each form at each shape: conditions [B, 416] → pixels uint8 [B, 64, 64, 3]."""
    shipped = weights.read(gan.WEIGHTS / gan.STUDENT)
    made: dict[str, Callable[[Floats], Pixels]] = {}
    for rows in SHAPES:
        for name, dtype in zip(FORMS, (torch.float32, torch.bfloat16), strict=False):
            network = copy.deepcopy(shipped.generator).to(device=where, dtype=dtype)
            made[f"{name}, {rows}"] = eager(network, dtype, where)
        made[f"{FORMS[-1]}, {rows}"] = cuda.CudaGenerator(
            shipped.generator, shipped.ranges, dtype=torch.bfloat16, device=where, rows=rows
        )
    return made


def eager(network: torch.nn.Module, dtype: torch.dtype, where: str) -> Callable[[Floats], Pixels]:
    """As torch runs it: the layout that it gives, pageable copies, a launch for each layer."""

    @torch.inference_mode()
    def run(conditions: Floats) -> Pixels:
        made = network(torch.from_numpy(conditions).to(where).to(dtype)).float()
        codes = (made.clamp(0, 1) * 255).round().to(torch.uint8)
        pixels: Pixels = codes.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return pixels

    return run


def items(number: int) -> list[Item]:
    """Prompts that no other number has."""
    return [
        Item(n, n, 0, f"{words.ATTRIBUTES[n % 8]} rocket number {number} {n}", n, 64, 64)
        for n in range(cuda.ROWS)
    ]


def seconds(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """Median seconds of each call, the calls in turn."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    fresh = count()
    for turn in range(rounds + 3):
        for name, call in calls.items():
            number = next(fresh)
            begun = time.perf_counter()
            call(number)
            if turn > 2:  # the first three warm up
                spent[name].append(time.perf_counter() - begun)
    return {name: statistics.median(each) for name, each in spent.items()}


def figures(where: str, rounds: int) -> Iterator[Figure]:
    drawn = networks(where)  # also settles the kernels: float32 in full
    model, encoder = gan.EmojiGan(), TextEncoder(gan.WEIGHTS)
    model.load(device=where, quantization="auto")
    assert model._engine is not None
    plan = gan._plan(model._engine, items(-1))
    own = gan._conditions(model._engine, items(-1), plan)
    given = {str(rows): np.tile(own, (rows // len(own), 1)) for rows in SHAPES}
    calls: dict[str, Call] = {}
    for name, render in drawn.items():
        conditions = given[name.split(", ")[1]]
        calls[f"network, {name}"] = lambda _, f=render, c=conditions: f(c)  # type: ignore[misc]
    calls[f"text to pixels, {cuda.ROWS}"] = lambda k: model.generate(items(k))
    calls[f"text alone, {cuda.ROWS}"] = lambda k: encoder.encode([i.prompt for i in items(k)])
    for name, spent in seconds(calls, rounds).items():
        yield Figure(name, int(name.split(", ")[-1]) / spent, "images/s")
    one = seconds({"one": lambda k: model.generate(items(k)[:1])}, rounds)["one"]
    yield Figure("text to pixels, one picture", one * 1e3, "ms", better="lower")
    truth = torch.from_numpy(drawn[f"{FORMS[0]}, {cuda.ROWS}"](own))
    for name in FORMS[1:]:
        made = torch.from_numpy(drawn[f"{name}, {cuda.ROWS}"](own))
        yield Figure(f"{name}, PSNR to float32", measure.closeness(made, truth), "dB")
    model.close()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    rounds = QUICK_ROUNDS if parser.parse_args(arguments).quick else ROUNDS
    try:
        where = device.choose("cuda")
    except errors.UnsupportedParameter as refusal:
        raise SystemExit(str(refusal)) from refusal
    print(__doc__)
    settings = {"device": device.name(where), "torch": torch.__version__, "rounds": rounds}
    show("gpu_gan", figures(where, rounds), **settings)


if __name__ == "__main__":
    main()
