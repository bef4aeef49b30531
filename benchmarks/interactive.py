"""One picture asked for, over the OpenAI endpoint, from an idle farm and while a bulk job
renders: what the farm adds to the generator's own time, beside the floor of its two fsyncs
(the object's and the row's). SQLite with synchronous=FULL, a folder with fsync."""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from benchmarks import stacks, work
from benchmarks.report import Figure, show
from promptmill.client import Client

MODEL = "emoji-gan"
BULK = 60_000


def own(count: int) -> tuple[float, float]:
    """Median seconds of the generator for one new prompt, and for a batch of 32."""
    generator = work.generator(MODEL)

    def took(batch: int, salt: int) -> float:
        todo = work.items(MODEL, batch, salt)
        begun = time.perf_counter()
        work.encoded(generator, MODEL, todo)
        return time.perf_counter() - begun

    single = statistics.median(took(1, 100_000 + number) for number in range(count))
    return single, statistics.median(took(32, 200_000 + number) for number in range(10))


def fsync(count: int) -> float:
    """Median seconds of making a file of 6 kB durable."""
    times = []
    with tempfile.TemporaryDirectory(prefix="pm-bench-") as folder:
        for number in range(count):
            begun = time.perf_counter()
            with (Path(folder) / str(number)).open("wb") as file:
                file.write(b"x" * 6000)
                file.flush()
                os.fsync(file.fileno())
            times.append(time.perf_counter() - begun)
    return statistics.median(times)


def ask(http: httpx.Client, count: int, word: str) -> list[float]:
    times = []
    for number in range(count):
        begun = time.perf_counter()
        asked = {"prompt": f"{word} {number}", "model": MODEL}
        http.post("/v1/images/generations", json=asked).raise_for_status()
        times.append(time.perf_counter() - begun)
    return times


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    count = 20 if parser.parse_args(arguments).quick else 150
    print(f"interactive: {count} single pictures from an idle farm, as many beside a bulk job")
    single, batch = own(count)
    floor = fsync(count)
    with stacks.stack("embedded") as servers, servers.farm(MODEL) as farm:
        http = httpx.Client(base_url=farm.url, timeout=120)
        ask(http, 10, "warm up")
        idle = ask(http, count, "a red heart on its own")
        rows = (f"a red heart in bulk {number}" for number in range(BULK))
        bulk = Client(farm.url).submit(rows, model=MODEL, packing="tar", priority="bulk")
        time.sleep(3)
        busy = ask(http, count, "a red heart among many")
        bulk.cancel()
    ms = 1000.0
    overhead = (statistics.median(idle) - single) * ms
    busy_overhead = (statistics.median(busy) - single) * ms
    worst = statistics.quantiles(busy, n=100)[98] * ms
    show(
        "interactive",
        [
            Figure("generator, one new prompt to PNG", single * ms, "ms"),
            Figure("generator, a micro-batch of 32", batch * ms, "ms"),
            Figure("fsync of one file of 6 kB", floor * ms, "ms"),
            Figure("idle farm, median", statistics.median(idle) * ms, "ms"),
            Figure("idle farm, overhead", overhead, "ms", 40.0, "lower"),
            Figure("beside bulk, median", statistics.median(busy) * ms, "ms"),
            Figure("beside bulk, overhead", busy_overhead, "ms", 40.0, "lower"),
            Figure("beside bulk, 99th percentile", worst, "ms", 100.0 + batch * ms, "lower"),
        ],
        **stacks.DURABLE,
        asked=count,
    )


if __name__ == "__main__":
    main()
