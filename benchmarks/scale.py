"""One to 64 workers that sleep two seconds a batch of 16, as GPUs busy elsewhere would: how
near the rate stays to linear; then the same with shorter and shorter batches, until
coordination is what limits, and who is busy then. A worker is the engine of the product with
its slots, leases, commits and objects; several share a process, since their Celery consumers
do nothing here."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import multiprocessing.synchronize
import os
import signal
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from benchmarks import big, processor, stacks
from benchmarks.report import Figure, show
from promptmill import settings
from promptmill.client import Client
from promptmill.redis_queue import RedisQueue

BATCH = 16
TOGETHER = 16  # engines in a process
STEADY_MS = 2000  # a batch, where the rate should be linear
LOOK = 0.2  # seconds between two looks at the job


def work(environ: dict[str, str], engines: int, ready: multiprocessing.synchronize.Event) -> None:
    """A process of `engines` workers, until SIGTERM."""
    from worker import app

    # A signal that came just before a pause would be slept through. Threads inherit this.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    os.environ.update(environ)
    # The engines of a process write one health file, at which nobody looks, in turns or not.
    logging.getLogger("worker.heart").setLevel(logging.ERROR)
    given = settings.read({k: v for k, v in environ.items() if k.startswith("PROMPTMILL_")})
    started = [app.open_engine(given) for _ in range(engines)]
    for engine in started:
        engine.start()

    ready.set()
    signal.sigwait({signal.SIGTERM})
    for engine in started:
        engine.drain()
    for engine in started:
        engine.stop(10.0)


@contextmanager
def fleet(environ: dict[str, str], workers: int) -> Iterator[list[int]]:
    """Runs so many workers; their process ids."""
    spawn = multiprocessing.get_context("spawn")
    parts = [min(TOGETHER, workers - first) for first in range(0, workers, TOGETHER)]
    events = [spawn.Event() for _ in parts]
    processes = [
        spawn.Process(target=work, args=(environ, engines, ready), daemon=True)
        for engines, ready in zip(parts, events, strict=True)
    ]
    for process in processes:
        process.start()
    try:
        for process, ready in zip(processes, events, strict=True):
            deadline = time.monotonic() + 120
            while not ready.wait(0.5):
                if not process.is_alive() or time.monotonic() > deadline:
                    raise SystemExit("a worker did not start")
        yield [process.pid or 0 for process in processes]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(30)
            if process.is_alive():
                raise SystemExit("a worker did not end")


def rate(
    client: Client, named: Mapping[int, str], *, steps: int, seconds: float, workers: int
) -> tuple[float, dict[str, float]]:
    """Images a second in the steady state of a job that outlasts the measurement, and the
    processors that each part keeps busy meanwhile. The rate is the slope of what is done,
    since workers that began together finish together, in steps."""
    expected = workers * BATCH * 1000 / steps
    lead = max(3.0, 1.5 * steps / 1000)
    count = int(expected * (lead + seconds) * 1.5)
    rows = ({"prompt": f"scale {n}", "steps": steps} for n in range(count))
    job = client.submit(rows, model="stub", packing="tar")
    time.sleep(lead)
    before, begun = processor.seconds(named), time.perf_counter()
    times, done = [0.0], [job.refresh().counts.done]
    while times[-1] < seconds:
        time.sleep(LOOK)
        done.append(job.refresh().counts.done)
        times.append(time.perf_counter() - begun)
    busy = processor.between(before, processor.seconds(named), times[-1])
    job.cancel()
    time.sleep(steps / 1000 + 0.5)
    return statistics.linear_regression(times, done).slope, busy


def measure(name: str, counts: Sequence[int], batches: Sequence[int]) -> list[Figure]:
    """counts: workers at 2 s a batch. batches: milliseconds a batch of the most workers."""
    figures = []
    with stacks.stack(name) as servers, servers.farm("stub", workers=0) as farm:
        with fleet(farm.environ(), 1):
            pass  # registers the model
        cap(farm.settings.redis, (STEADY_MS, *batches))
        client = Client(farm.url)
        for workers in counts:
            with fleet(farm.environ(), workers) as pids:
                named = dict.fromkeys(pids, "workers")
                named |= {pid: part for part, pid in farm.pids().items()}
                found, _ = rate(client, named, steps=STEADY_MS, seconds=10.0, workers=workers)
                linear = workers * BATCH * 1000 / STEADY_MS
                told = f"{name}: {workers} workers of {BATCH} images in 2 s"
                figures.append(Figure(told, found, "images/s"))
                figures.append(Figure(f"{told}, of linear", found / linear, "ratio", 0.9))
                if workers == counts[-1]:
                    figures += saturation(name, client, named, batches, workers=workers)
    return figures


def saturation(
    name: str, client: Client, named: Mapping[int, str], batches: Sequence[int], *, workers: int
) -> list[Figure]:
    """Shorter and shorter batches: the highest rate, and the processors that each part keeps
    busy at it. What saturates first is the part that has none left to take; where processors
    are idle meanwhile, it is what no processor hurries: commits that wait for the disk, one
    after the other on SQLite."""
    figures, best, busy = [], 0.0, {}
    for steps in batches:
        found, spent = rate(client, named, steps=steps, seconds=6.0, workers=workers)
        ideal = workers * BATCH * 1000 / steps
        told = f"{name}: {workers} workers, {steps} ms a batch ({ideal:,.0f} ideal)"
        figures.append(Figure(told, found, "images/s"))
        if found > best:
            best, busy = found, spent
    figures.append(Figure(f"{name}: the rate at which this machine saturates", best, "images/s"))
    total = f"{name}: then busy, of {os.cpu_count()} processors"
    figures.append(Figure(total, sum(busy.values()), "processors"))
    figures += [
        Figure(f"{name}: then busy, {part}", share, "processors")
        for part, share in busy.items()
        if share >= 0.005
    ]
    return figures


def cap(redis_url: str, batches: Sequence[int]) -> None:
    """Batches of 16, where the stub would take 32."""
    queue = RedisQueue(redis_url, "stub")
    for steps in batches:
        queue.set_cap(f"{big.BUCKET},steps={steps}", BATCH)
    queue.close()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args(arguments).quick
    counts, batches = ((1, 4), (200,)) if quick else ((1, 8, 64), (500, 250))
    print(f"scale: up to {counts[-1]} sleeping workers")
    figures = [f for name in stacks.NAMES for f in measure(name, counts, batches)]
    show("scale", figures, **stacks.DURABLE, batch=BATCH)


if __name__ == "__main__":
    main()
