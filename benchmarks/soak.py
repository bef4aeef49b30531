"""Two hundred thousand images through one worker: the memory of API, control, worker and
Valkey, looked at every 50,000; what grew after the first 50,000 grows for ever."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from benchmarks import stacks
from benchmarks.ingest import resident
from benchmarks.report import Figure, show
from promptmill.client import Client

SAMPLES = 9  # looks at a stage, of which the median counts


def settled(pids: dict[str, int]) -> dict[str, float]:
    """MB of each process: the median of a few looks."""
    looks = []
    for _ in range(SAMPLES):
        looks.append({name: resident(pid) for name, pid in pids.items()})
        time.sleep(0.2)
    return {name: sorted(look[name] for look in looks)[SAMPLES // 2] for name in pids}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    stage = 2000 if parser.parse_args(arguments).quick else 50_000
    print(f"soak: four jobs of {stage:,} images through one stub worker")
    with stacks.stack("embedded") as servers, servers.farm("stub") as farm:
        client, pids, seen = Client(farm.url), farm.pids(), []
        begun = time.perf_counter()
        for number in range(4):
            prompts = (f"soak {number} {index}" for index in range(stage))
            client.submit(prompts, model="stub", packing="tar").wait()
            seen.append(settled(pids))
        seconds = time.perf_counter() - begun
        if farm.pids() != pids:
            raise SystemExit("a process of the farm was restarted")
    figures = [Figure("rate", 4 * stage / seconds, "images/s")]
    for name in pids:
        first, last = seen[0][name], seen[-1][name]
        aim = max(10.0, first / 20)
        figures += [
            Figure(f"{name} after {stage:,}", first, "MB"),
            Figure(f"{name} grew until {4 * stage:,}", last - first, "MB", aim, "lower"),
        ]
    show("soak", figures, **stacks.DURABLE, images=4 * stage)


if __name__ == "__main__":
    main()
