"""One picture asked for, over the OpenAI endpoint, from an idle farm and while a bulk job
renders: what the farm adds to the generator's own time, beside the floor of its two fsyncs
(the object's and the row's), and where an idle farm's time goes. SQLite with synchronous=FULL, a
folder with fsync."""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

from benchmarks import stacks, work
from benchmarks.report import Figure, show
from promptmill.client import Client

MODEL = "emoji-gan"
BULK = 60_000
WARM = 10


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


def steps(http: httpx.Client, images: int) -> dict[str, float]:
    """Seconds that the worker spent on each step of so many images, once it has told them: it
    does with its next heartbeat."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        [worker] = http.get("/v1/workers").raise_for_status().json()["data"]
        if worker["state"] == "idle" and worker["images"] == images:
            told: dict[str, float] = worker["seconds"]
            return told
        time.sleep(0.5)
    raise SystemExit("the worker does not tell of its images")


def submission(http: httpx.Client, count: int) -> float:
    """Mean seconds until a job of one image is durable and queued."""
    times = []
    for number in range(count):
        begun = time.perf_counter()
        told = http.post("/v1/jobs", json={"prompts": [f"alone {number}"], "model": MODEL})
        times.append(time.perf_counter() - begun)
        with http.stream("GET", f"/v1/jobs/{told.raise_for_status().json()['id']}/events") as end:
            end.read()
    return statistics.mean(times)


def account(spent: dict[str, float], queued: float, whole: float, count: int) -> Iterator[Figure]:
    """Where the mean time of an idle farm's picture goes. What no part of the farm measures by
    itself is what is left."""
    parts = {"submission": queued} | {name: each / count for name, each in spent.items()}
    parts["what is left: wake-up, lease, until the API sees it, the answer"] = whole - sum(
        parts.values()
    )
    for name, seconds in parts.items():
        yield Figure(f"idle farm, of that: {name}", seconds * 1000, "ms")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    count = 20 if parser.parse_args(arguments).quick else 150
    print(f"interactive: {count} single pictures from an idle farm, as many beside a bulk job")
    single, batch = own(count)
    floor = fsync(count)
    with stacks.stack("embedded") as servers, servers.farm(MODEL) as farm:
        http = httpx.Client(base_url=farm.url, timeout=120)
        ask(http, WARM, "warm up")
        before = steps(http, WARM)
        idle = ask(http, count, "a red heart on its own")
        spent = {
            name: seconds - before[name] for name, seconds in steps(http, WARM + count).items()
        }
        queued = submission(http, count // 3)
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
            *account(spent, queued, statistics.mean(idle), count),
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
