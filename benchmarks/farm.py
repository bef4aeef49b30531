"""Images per second through the whole farm (submitted over HTTP, objects written, rows
committed) beside the bare generator loop (the same items from prompt text to encoded picture,
nothing stored) and beside plain Celery with one task an image (object and row durable too).
In turn, several rounds; medians of the ratios. Both stacks, both packings."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence

from benchmarks import stacks
from benchmarks.report import Figure, show
from promptmill import jobs
from promptmill.client import Client

BATCH = 32
AIMS = {("stub", "embedded"): 0.95, ("stub", "fleet"): 0.95}
AIMS |= {("emoji-gan", "embedded"): 0.85, ("emoji-gan", "fleet"): 0.6}
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def items(model: str, count: int, salt: int) -> list[jobs.Item]:
    """Distinct prompts, so that no cache of texts helps either side. The stub sleeps 50 ms
    a batch, as a GPU would be busy elsewhere."""
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
        env={**os.environ, **ONE_THREAD},
    )
    return float(done.stdout.splitlines()[-1])


def through(client: Client, model: str, count: int, *, salt: int, packing: str) -> float:
    """Seconds from the first byte of the submission until the job is seen completed."""
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


def plain_celery(model: str, count: int) -> float:
    """Images a second of `benchmarks.plain_celery`, which submits, renders and stores."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.plain_celery", model, str(count)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, **ONE_THREAD},
    )
    return float(done.stdout.splitlines()[-1])


def measure(name: str, model: str, count: int, rounds: int) -> list[Figure]:
    ratios: dict[str, list[float]] = defaultdict(list)
    rates: dict[str, list[float]] = defaultdict(list)
    with stacks.stack(name) as servers, servers.farm(model) as farm:
        client = Client(farm.url)
        client.submit(["warm up"], model=model).wait()
        for number in range(rounds):
            alone = bare_elsewhere(model, count, number)
            rates["bare"].append(count / alone)
            for turn, packing in enumerate(("tar", "image"), start=1):
                salt = number + turn * rounds  # never the same prompts twice in one worker
                took = through(client, model, count, salt=salt, packing=packing)
                rates[packing].append(count / took)
                ratios[packing].append(alone / took)
    median, told = statistics.median, f"{model}, {name}"
    return [
        Figure(f"{told}: bare loop", median(rates["bare"]), "images/s"),
        Figure(f"{told}: farm, tar", median(rates["tar"]), "images/s"),
        Figure(f"{told}: farm, image", median(rates["image"]), "images/s"),
        Figure(f"{told}: farm/bare, tar", median(ratios["tar"]), "ratio", aim=AIMS[model, name]),
        Figure(f"{told}: farm/bare, image", median(ratios["image"]), "ratio"),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", metavar="STACK", choices=stacks.NAMES)
    parser.add_argument("--bare", nargs=3, metavar=("MODEL", "COUNT", "SALT"))
    given = parser.parse_args(arguments)
    if given.bare:
        model, count, salt = given.bare
        print(bare(model, int(count), int(salt)))
        return
    rounds, count = (2, 640) if given.quick else (3, 3200)
    print(f"the farm beside the bare loop: {count} images, {rounds} rounds, batches of {BATCH}")
    names = [given.only] if given.only else stacks.NAMES
    figures = []
    for model in ("stub", "emoji-gan"):
        for name in names:
            figures += measure(name, model, count, rounds)
        rate = plain_celery(model, count // 4)
        figures.append(Figure(f"{model}: plain Celery, a task an image", rate, "images/s"))
    show(
        "farm",
        figures,
        **{name: stacks.DURABILITY[name] for name in names},
        plain_celery="files with fsync, SQLite synchronous=FULL, a message an image in Valkey",
        images=count,
        rounds=rounds,
    )


if __name__ == "__main__":
    main()
