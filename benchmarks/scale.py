"""One to 64 workers that sleep two seconds a batch of 16, as GPUs busy elsewhere would: how
near the rate stays to linear; then the same with shorter and shorter batches, until
coordination is what limits. A worker is the engine of the product with its slots, leases,
commits and objects; several share a process, since their Celery consumers do nothing here."""

from __future__ import annotations

import argparse
import multiprocessing
import multiprocessing.synchronize
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks import big, stacks
from benchmarks.report import Figure, show
from promptmill import settings
from promptmill.client import Client

BATCH = 16
TOGETHER = 16  # engines in a process


def work(environ: dict[str, str], engines: int, ready: multiprocessing.synchronize.Event) -> None:
    """A process of `engines` workers, until SIGTERM."""
    from worker import app

    given = settings.read({k: v for k, v in environ.items() if k.startswith("PROMPTMILL_")})
    started = [app.open_engine(given) for _ in range(engines)]
    for engine in started:
        engine.start()

    def end(*_: object) -> None:
        for engine in started:
            engine.drain()
        for engine in started:
            engine.stop(10.0)
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    ready.set()
    while True:
        signal.pause()


@contextmanager
def fleet(environ: dict[str, str], workers: int) -> Iterator[None]:
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
        for ready in events:
            if not ready.wait(120):
                raise SystemExit("a worker did not start")
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(30)


def rate(client: Client, *, steps: int, seconds: float, workers: int) -> float:
    """Images a second in the steady state of a job that outlasts the measurement."""
    expected = workers * BATCH * 1000 / steps
    rows = ({"prompt": f"scale {n}", "steps": steps} for n in range(int(expected * seconds * 3)))
    job = client.submit(rows, model="stub", packing="tar")
    lead = max(3.0, 1.5 * steps / 1000)
    time.sleep(lead)
    begun, first = time.perf_counter(), job.refresh().counts.done
    time.sleep(seconds)
    found = (job.refresh().counts.done - first) / (time.perf_counter() - begun)
    job.cancel()
    time.sleep(steps / 1000 + 0.5)
    return found


def measure(name: str, counts: Sequence[int], batches: Sequence[int]) -> list[Figure]:
    """counts: workers at 2 s a batch. batches: milliseconds a batch of the most workers."""
    figures = []
    with stacks.stack(name) as servers, servers.farm("stub", workers=0) as farm:
        environ = farm.environ()
        with fleet(environ, 1):
            pass  # registers the model
        client = Client(farm.url)
        _cap(farm.settings.redis)
        for workers in counts:
            with fleet(environ, workers):
                found = rate(client, steps=2000, seconds=12.0, workers=workers)
                ideal = workers * BATCH / 2.0
                told = f"{name}: {workers} workers of {BATCH} images in 2 s"
                figures.append(Figure(told, found, "images/s"))
                figures.append(Figure(f"{told}, of linear", found / ideal, "ratio", 0.9))
                if workers == counts[-1]:
                    for steps in batches:
                        found = rate(client, steps=steps, seconds=6.0, workers=workers)
                        ideal = workers * BATCH * 1000 / steps
                        told = f"{name}: {workers} workers, {steps} ms a batch ({ideal:,.0f} ideal)"
                        figures.append(Figure(told, found, "images/s"))
    return figures


def _cap(redis_url: str) -> None:
    from promptmill.queue import RedisQueue

    queue = RedisQueue(redis_url, "stub")
    for steps in (2000, 1000, 500, 250):
        queue.set_cap(f"{big.BUCKET},steps={steps}", BATCH)
    queue.close()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args(arguments).quick
    counts, batches = ((1, 4), (500,)) if quick else ((1, 8, 64), (1000, 500, 250))
    print(f"scale: up to {counts[-1]} sleeping workers")
    figures = [f for name in stacks.NAMES for f in measure(name, counts, batches)]
    show("scale", figures, **stacks.DURABILITY, batch=BATCH)


if __name__ == "__main__":
    main()
