"""Runs every benchmark in a process of its own and writes benchmarks/RESULTS.md."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NOT_BENCHMARKS = {"__init__", "__main__", "report", "stacks", "plain_celery", "load", "big", "gpu"}


def main() -> int:
    names = sorted(p.stem for p in HERE.glob("*.py") if p.stem not in NOT_BENCHMARKS)
    lines = [
        "# Results",
        "",
        "Written by `make bench`; each figure is measured, none typed in.",
        "",
    ]
    failed = []
    for name in names:
        print(f"== {name}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        print(done.stdout, end="", flush=True)
        if done.returncode:
            failed.append(name)
            continue
        report = json.loads(done.stdout.splitlines()[-1])
        machine = report["machine"]
        lines += [f"## {name}", "", f"{machine['cpu']}, {machine['cores']} cores;"]
        lines += [", ".join(f"{k} {v}" for k, v in report["settings"].items()), ""]
        lines += ["| figure | value | unit | aim |", "|---|---|---|---|"]
        for r in report["results"]:
            aim = "" if r["aim"] is None else f"{r['aim']:g}"
            lines.append(f"| {r['name']} | {r['value']:.4g} | {r['unit']} | {aim} |")
        lines.append("")
    (HERE / "RESULTS.md").write_text("\n".join(lines))
    print(f"benchmarks/RESULTS.md written; {len(names) - len(failed)} ran, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
