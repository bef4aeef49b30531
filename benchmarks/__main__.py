"""Runs every benchmark in a process of its own; keeps what a full run found in results.json
and makes RESULTS.md and the README's table of it.

    python -m benchmarks [--quick] [--only farm,ingest] [--write]
    python -m benchmarks --judge FOLDER --data FOLDER

--only: these alone, merged into what earlier runs found. --quick: small sizes, to see that
they work; nothing is kept. --write: measures nothing, makes the pages anew. --judge, --data:
`compress` alone, in few rounds, with what the judges in these folders say of each form; kept
beside what a full run of it found."""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import results

ALWAYS = (
    *("compress", "farm", "ingest", "interactive", "queue"),
    *("scale", "scroll", "soak", "status"),
)
ON_GPU = ("gpu", "gpu_gan")  # run where there is one
# By `--only`: export for its length, peers for what it installs.
ASKED_FOR = ("export", "peers", *ON_GPU)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", type=lambda names: names.split(","), metavar="NAME,NAME")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--judge", nargs="+", metavar="FOLDER")
    parser.add_argument("--data", metavar="FOLDER")
    given = parser.parse_args(arguments)
    names = usual() if given.only is None else given.only
    if unknown := set(names) - {*ALWAYS, *ASKED_FOR}:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    if given.write:
        results.write(results.read())
        return 0
    if given.judge or given.data:
        if not (given.judge and given.data) or given.only:
            parser.error("--judge and --data go together, without --only")
        asked = ["--quick", *_option("--judge", given.judge), *_option("--data", given.data)]
        kept = None if given.quick else results.JUDGED
        return 0 if measured("compress", *asked, kept=kept) else 1
    quick = ["--quick"] if given.quick else []
    failed = [n for n in names if not measured(n, *quick, kept=None if given.quick else n)]
    for name in failed:
        print(f"{name} FAILED; what an earlier run of it found stands")
    return 1 if failed else 0


def usual() -> list[str]:
    return [*ALWAYS, *ON_GPU] if shutil.which("nvidia-smi") else [*ALWAYS]


def _option(name: str, values: Sequence[str] | str | None) -> list[str]:
    return [name, *([values] if isinstance(values, str) else values)] if values else []


def measured(name: str, *arguments: str, kept: str | None) -> bool:
    """Runs one, shows what it prints while it does, and keeps its report at once, so that a
    later failure loses nothing. kept: under which name."""
    print(f"== {name}", flush=True)
    begun = time.monotonic()
    report = run(name, *arguments)
    seconds = time.monotonic() - begun
    print(f"== {name} took {seconds:.0f} s\n", flush=True)
    if report is None:
        return False
    if kept is not None:
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        results.write({**results.read(), kept: {"date": today, "seconds": seconds, **report}})
    return True


def run(name: str, *arguments: str) -> dict[str, Any] | None:
    """The report on the last line of what the benchmark prints; None when it failed."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line
    if process.returncode:
        return None
    report: dict[str, Any] = json.loads(last)
    return report


if __name__ == "__main__":
    sys.exit(main())
