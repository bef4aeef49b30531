"""Measures the shipped weights: `python -m worker.gan.measure`. Speed of int8 beside
float32 on one thread, how close the two are, and the sheet of fixed prompts."""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from worker import command
from worker.gan import captions, integers, lexicon, quantize, validation, weights
from worker.gan.encoder import TextEncoder
from worker.gan.networks import NOISE, condition

WEIGHTS = Path(__file__).parent.parent / "weights" / "emoji-gan"
ROUNDS = 15
Renderer = Callable[[Tensor], Tensor]


def conditions(encoder: TextEncoder, prompts: Sequence[str]) -> Tensor:
    """Conditions [N, 416] of the prompts, each with its own fixed noise."""
    plain, vendors = zip(*(captions.parse(prompt) for prompt in prompts), strict=True)
    chance = torch.Generator().manual_seed(0)
    noise = torch.randn(len(prompts), NOISE, generator=chance)
    vendor = torch.tensor([number or 0 for number in vendors])
    return condition(lexicon.embed(encoder, plain), vendor, noise)


def milliseconds(renderers: dict[str, Renderer], given: Tensor) -> dict[str, float]:
    """Median milliseconds per image of each renderer, measured in turns."""
    spent: dict[str, list[float]] = {name: [] for name in renderers}
    for _ in range(ROUNDS):
        for name, render in renderers.items():
            began = time.perf_counter()
            render(given)
            spent[name].append((time.perf_counter() - began) / len(given) * 1e3)
    return {name: statistics.median(times) for name, times in spent.items()}


def closeness(one: Tensor, other: Tensor) -> float:
    """PSNR in decibel of two uint8 tensors."""
    error = (one.float() - other.float()).square().mean().item()
    return 10 * math.log10(255**2 / max(error, 1e-12))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure the shipped emoji GAN.")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--encoder", type=Path, default=WEIGHTS, help="folder of the text encoder")
    parser.add_argument("--sheet", type=Path, help="where to save the sheet of fixed prompts")
    parser.add_argument("--data", type=Path, help="training set, for accuracy figures")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    shipped = weights.read(options.weights)
    small = integers.IntegerGenerator(shipped.generator, shipped.ranges)
    whole = quantize.FloatGenerator(shipped.generator, shipped.ranges, rows=32)
    encoder = TextEncoder(options.encoder)
    given = conditions(encoder, validation.PROMPTS)
    drawn = small(given)
    told: dict[str, float] = {"psnr_int8_to_float": closeness(drawn, whole(given))}
    for size in (1, 8, 32):
        speed = milliseconds({"int8": small, "float": whole}, given[:size])
        told |= {f"{name}_ms_at_{size}": value for name, value in speed.items()}
    if options.data:
        lessons = lexicon.lessons(options.data, encoder, seed=1)
        told |= validation.report(whole.network, lessons, sample=1000)
    if options.sheet:
        pictures = drawn.permute(0, 2, 3, 1).contiguous().numpy()
        validation.save(pictures, 8, options.sheet)
    print(json.dumps({name: round(value, 3) for name, value in told.items()}, indent=1))


if __name__ == "__main__":
    command.run(main)
