"""Two hundred thousand images through one worker, on each stack: the memory of API, control,
worker and Redis (embedded: Valkey), looked at every 50,000; what grew after the first 50,000
grows for ever."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence

from benchmarks import stacks
from benchmarks.ingest import resident
from benchmarks.report import Figure, show
from promptmill.client import Client
from promptmill.local import Farm

STAGES = 4
SAMPLES = 9  # looks at a stage, of which the median counts


def settled(pids: dict[str, int]) -> dict[str, float]:
    """MB of each process: the median of a few looks."""
    looks = []
    for _ in range(SAMPLES):
        looks.append({name: resident(pid) for name, pid in pids.items()})
        time.sleep(0.2)
    return {name: sorted(look[name] for look in looks)[SAMPLES // 2] for name in pids}


def watched(servers: stacks.Stack, farm: Farm) -> dict[str, int]:
    """Process ids by name: the farm's own, and the fleet's Redis."""
    redis = servers.queue and servers.queue.process
    return farm.pids() | ({"redis": redis.pid} if redis else {})


def soaked(stack: str, stage: int) -> Iterator[Figure]:
    """Every process's memory after each stage, and what it grew by since the first."""
    with stacks.stack(stack) as servers, servers.farm("stub") as farm:
        client, pids, seen = Client(farm.url), watched(servers, farm), []
        begun = time.perf_counter()
        for number in range(STAGES):
            prompts = (f"soak {number} {index}" for index in range(stage))
            client.submit(prompts, model="stub", packing="tar").wait()
            seen.append(settled(pids))
        seconds = time.perf_counter() - begun
        if watched(servers, farm) != pids:
            raise SystemExit("a process of the farm was restarted")
    yield Figure(f"{stack}: rate", STAGES * stage / seconds, "images/s")
    for name in pids:
        first, last = seen[0][name], seen[-1][name]
        for number, each in enumerate(seen, 1):
            yield Figure(f"{stack}: {name} after {number * stage:,}", each[name], "MB")
        grew = f"{stack}: {name} grew until {STAGES * stage:,}"
        yield Figure(grew, last - first, "MB", max(10.0, first / 20), "lower")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    stage = 2000 if parser.parse_args(arguments).quick else 50_000
    print(f"soak: {STAGES} jobs of {stage:,} images through one stub worker, on each stack")
    figures = [figure for stack in stacks.NAMES for figure in soaked(stack, stage)]
    show("soak", figures, **stacks.DURABLE, images=STAGES * stage)


if __name__ == "__main__":
    main()
