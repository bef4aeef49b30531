"""`python -m tests.chaos [--minutes 30] [--seed N] [--stack embedded|fleet|both]`: chaos on
real processes; prints its report, and ends with status 1 where an invariant did not hold,
with the logs of every process below build/chaos."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.report import WHOLE, Totals, write
from tests.chaos.run import Run
from tests.chaos.world import World
from tests.conftest import scrub

ALONE = 0.4  # of the time
KEPT = Path("build/chaos")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--stack", choices=["embedded", "fleet", "both"], default="both")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--backlog", type=int, default=3000, help="images open at any time")
    parser.add_argument("--batch-ms", type=int, default=50, help="rendering of a micro-batch")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended
    scrub()
    stacks = ["embedded", "fleet"] if given.stack == "both" else [given.stack]
    seconds = given.minutes * 60 / len(stacks)
    totals = Totals(given.seed)
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:7.1f} s  {text}", flush=True)

    for stack in stacks:
        say(f"{stack}, seed {given.seed}")
        with (
            tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder,
            World(stack, Path(folder), workers=given.workers) as world,
        ):
            run = Run(world, seed=given.seed, batch_ms=given.batch_ms, say=say)
            found = run.go(
                alone=seconds * ALONE, mixed=seconds * (1 - ALONE), backlog=given.backlog
            )
            if found.violations:
                kept = KEPT / f"{stack}-{given.seed}"
                kept.mkdir(parents=True, exist_ok=True)
                for log in world.farm.folder.glob("*.log"):
                    shutil.copy(log, kept)
                say(f"the logs are kept in {kept}")
        totals.add(found)
    if given.minutes >= WHOLE:
        totals.demand()
    print(write(totals))
    return 1 if totals.violations else 0


if __name__ == "__main__":
    sys.exit(main())
