"""Images per second through the whole farm (HTTP submission, durable rows, objects written)
beside the bare generator loop (the same items, rendered and encoded, nothing stored), in
turn, several rounds; the median of the ratios. SQLite with synchronous=FULL, a folder."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Figure, show
from promptmill import jobs
from promptmill.client import Client
from promptmill.local import Farm

BATCH = 32


def items(model: str, count: int, salt: int) -> list[jobs.Item]:
    """Distinct prompts, so that no cache of texts helps either side."""
    steps = 50 if model == "stub" else 1
    return [
        jobs.Item(
            index=i, row=i, sample=0, prompt=f"a red heart with number {salt} {i}", seed=i,
            width=64, height=64, steps=steps,
        )
        for i in range(count)
    ]  # fmt: skip


def bare(model: str, count: int, salt: int) -> float:
    """Seconds for the loop: generate a full batch, encode each picture. One process, one
    thread, weights warm."""
    from worker import encode
    from worker.generators import registry

    generator = registry.create(model)
    generator.load(device="auto", quantization="auto")
    generator.warmup(generator.caps.batch_shapes)
    todo = items(model, count, salt)
    begun = time.perf_counter()
    for at in range(0, count, BATCH):
        chunk = todo[at : at + BATCH]
        for item, pixels in zip(chunk, generator.generate(chunk), strict=True):
            encode.encode(pixels, item, model=model, fingerprint="bare", format="png")
    return time.perf_counter() - begun


def bare_elsewhere(model: str, count: int, salt: int) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.farm", "--bare", model, str(count), str(salt)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout.splitlines()[-1])


def through(client: Client, model: str, count: int, *, salt: int, packing: str) -> float:
    """Seconds from the first byte of the submission to the job's completion."""
    rows = [
        {"prompt": i.prompt, "seed": i.seed, **({"steps": i.steps} if model == "stub" else {})}
        for i in items(model, count, salt)
    ]
    begun = time.perf_counter()
    job = client.submit(rows, model=model, packing=packing)
    job.wait()
    took = time.perf_counter() - begun
    if job.refresh().counts.done != count:
        raise SystemExit(f"{model}: {job.counts}")
    return took


def warm(client: Client, model: str) -> None:
    client.submit(["warm up"], model=model).wait()


def measure(model: str, count: int, rounds: int) -> list[Figure]:
    ratios: dict[str, list[float]] = {"tar": [], "image": []}
    rates: dict[str, list[float]] = {"tar": [], "image": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder, Farm(Path(folder), model=model, port=0) as farm:
        client = Client(farm.url)
        warm(client, model)
        for number in range(rounds):
            alone = bare_elsewhere(model, count, number)
            rates["bare"].append(count / alone)
            for turn, packing in enumerate(("tar", "image"), start=1):
                salt = number + turn * rounds  # never the same prompts twice in one worker
                took = through(client, model, count, salt=salt, packing=packing)
                rates[packing].append(count / took)
                ratios[packing].append(alone / took)
    median = statistics.median
    aim = 0.95 if model == "stub" else 0.85
    return [
        Figure(f"{model} bare loop", median(rates["bare"]), "images/s"),
        Figure(f"{model} farm, tar", median(rates["tar"]), "images/s"),
        Figure(f"{model} farm, image", median(rates["image"]), "images/s"),
        Figure(f"{model} farm/bare, tar", median(ratios["tar"]), "ratio", aim=aim),
        Figure(f"{model} farm/bare, image", median(ratios["image"]), "ratio"),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--bare", nargs=3, metavar=("MODEL", "COUNT", "SALT"))
    given = parser.parse_args(arguments)
    if given.bare:
        model, count, salt = given.bare
        print(bare(model, int(count), int(salt)))
        return
    rounds, count = (2, 640) if given.quick else (5, 3200)
    print(f"the farm beside the bare loop: {count} images, {rounds} rounds, batches of {BATCH}")
    figures = [f for model in ("stub", "emoji-gan") for f in measure(model, count, rounds)]
    show(
        "farm", figures, database="SQLite synchronous=FULL", storage="folder, fsync",
        images=count, rounds=rounds,
    )  # fmt: skip


if __name__ == "__main__":
    main()
