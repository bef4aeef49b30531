"""Static int8 of shipped weights: `python -m worker.compress.int8 --source DIR --out DIR`
observes the ranges again, adapts the weights to them and keeps those as 8-bit codes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from worker import command
from worker.gan import batches, export, lexicon, manifest, weights
from worker.gan.encoder import TextEncoder
from worker.gan.lexicon import Lessons
from worker.gan.weights import Shipped


def quantize(source: Path, given: Lessons, out: Path, *, adapt: int) -> Shipped:
    """Writes the weights in `source` as int8 codes, with their manifest, to `out`."""
    shipped = weights.read(source)
    adapted, ranges = export.quantized(shipped.generator, given, steps=adapt)
    weights.write(out, adapted, ranges, step=shipped.step, coded=True)
    manifest.write(
        out,
        "int8",
        made=weights.FILES,
        source={"weights": shipped.digest},
        settings={"adapt": adapt},
        figures=export.figures(weights.read(out), shipped.generator, given),
    )
    return weights.read(out)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Bring shipped weights to static int8.")
    parser.add_argument("--source", type=Path, required=True, help="folder of shipped weights")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--encoder", type=Path, default=Path("worker/weights/emoji-gan"))
    parser.add_argument("--adapt", type=int, default=250, help="steps of adapting to int8")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    given = lexicon.lessons(options.data, TextEncoder(options.encoder), seed=batches.Plan().seed)
    made = quantize(options.source, given, options.out, adapt=options.adapt)
    print(f"{options.out}: digest {made.digest}")


if __name__ == "__main__":
    command.run(main)
