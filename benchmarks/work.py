"""The items that every side of a comparison renders, and the bare loop over them: from prompt
text to encoded picture, nothing stored. `python -m benchmarks.work MODEL COUNT SALT` prints
the loop's images per second."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from promptmill import jobs

MODELS = ("stub", "emoji-gan")
BATCH = 32
STUB_MS = 50  # a batch of the stub, as a GPU would be busy elsewhere
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def items(model: str, count: int, salt: int) -> list[jobs.Item]:
    """Distinct prompts, so that no cache of texts helps any side."""
    return [
        item({"number": i, "prompt": f"a red heart with number {salt} {i}", "model": model})
        for i in range(count)
    ]


def row(item: jobs.Item, model: str) -> dict[str, Any]:
    """What a peer is sent of an item; the farm gets rows of its own form."""
    return {"number": item.index, "prompt": item.prompt, "model": model}


def item(row: dict[str, Any]) -> jobs.Item:
    """The inverse of `row`. The seed is the number."""
    number, steps = row["number"], STUB_MS if row["model"] == "stub" else 1
    return jobs.Item(
        index=number, row=number, sample=0, prompt=row["prompt"], seed=number,
        width=64, height=64, steps=steps,
    )  # fmt: skip


def generator(model: str) -> Any:
    """Loaded and warm."""
    from worker.generators import registry

    made = registry.create(model)
    made.load(device="auto", quantization="auto")
    made.warmup(made.caps.batch_shapes)
    return made


def encoded(generator: Any, model: str, chunk: Sequence[jobs.Item]) -> list[bytes]:
    """One micro-batch from items to PNG."""
    return pngs(generator.generate(chunk), model, chunk)


def pngs(pixels: Any, model: str, chunk: Sequence[jobs.Item]) -> list[bytes]:
    from worker import encode

    return [
        encode.encode(picture, item, model=model, fingerprint="bench", format="png")
        for picture, item in zip(pixels, chunk, strict=True)
    ]


def bare(model: str, count: int, salt: int) -> float:
    """Images a second of the loop: generate a full batch, encode each picture. One process,
    one thread, weights warm."""
    made, todo = generator(model), items(model, count, salt)
    begun = time.perf_counter()
    for at in range(0, count, BATCH):
        encoded(made, model, todo[at : at + BATCH])
    return count / (time.perf_counter() - begun)


def elsewhere(module: str, *arguments: object) -> Any:
    """The JSON value on the last line of what `python -m MODULE ARGUMENTS` prints, run with
    the generator on one thread."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, **ONE_THREAD},
    )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(bare(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
