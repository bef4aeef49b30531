"""What a run found, as a table for people and one line of JSON."""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos.invariants import Violation

BATCH = 32  # the stub's largest micro-batch
WHOLE = 30.0  # minutes of a run that must show all of the following
IMAGES, FAULTS = 100_000, 200  # at least
IN_VAIN = 100  # images at most for a fault: 2 % where one strikes every 5,000


@dataclass
class Totals:
    """Of one stack, or of several. recovery: seconds, by fault class; wasted: images
    rendered in vain while a class struck `alone` so many times. left_out: classes that this
    user cannot inject."""

    seed: int
    stacks: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    seconds: float = 0.0
    jobs: int = 0
    images: int = 0
    rendered: int = 0
    recovery: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    wasted: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    alone: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    injected: int = 0
    unclear: int = 0
    repairs: int = 0
    rebuilt: int = 0
    violations: list[Violation] = field(default_factory=list)

    @property
    def faults(self) -> int:
        return sum(map(len, self.recovery.values()))

    def add(self, other: Totals) -> None:
        self.stacks += other.stacks
        self.left_out += other.left_out
        for name in ("seconds", "jobs", "images", "rendered", "injected", "unclear"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.repairs += other.repairs
        self.rebuilt += other.rebuilt
        self.violations += other.violations
        for name, seconds in other.recovery.items():
            self.recovery[name] += seconds
        for name, count in other.wasted.items():
            self.wasted[name] += count
        for name, count in other.alone.items():
            self.alone[name] += count

    def wasted_each(self) -> dict[str, float]:
        """Images rendered in vain for one fault of a class that struck alone."""
        found = {name: count / max(1, self.alone[name]) for name, count in self.wasted.items()}
        return {name: round(each, 1) for name, each in sorted(found.items())}

    def demand(self) -> None:
        """Of a whole run: that it was long and hard enough, and rendered little in vain."""
        wasted = (self.rendered - self.images) / max(1, self.faults)
        each = self.wasted_each().get("worker.kill", 0.0)
        for short in (
            f"{self.images:,} images of {IMAGES:,}" if self.images < IMAGES else "",
            f"{self.faults} faults of {FAULTS}" if self.faults < FAULTS else "",
            f"{wasted:.0f} rendered in vain for a fault" if wasted > IN_VAIN else "",
            f"{each:.0f} rendered in vain for a worker killed" if each > 2 * BATCH else "",
        ):
            if short:
                self.violations.append(Violation("demand", "", short))

    def figures(self) -> dict[str, object]:
        kinds = Counter(v.kind for v in self.violations)
        return {
            "seed": self.seed,
            "stacks": self.stacks,
            "left_out": self.left_out,
            "seconds": round(self.seconds),
            "jobs": self.jobs,
            "images": self.images,
            "faults": self.faults,
            "lost": kinds["lost"],
            "twice": kinds["twice"],
            "innocents_failed": kinds["failed"],
            "violations": dict(kinds),
            "rendered": self.rendered,
            "wasted": self.rendered - self.images,
            "wasted_percent": round(100 * (self.rendered / max(1, self.images) - 1), 2),
            "repairs": self.repairs,
            "enqueues_lost": self.injected,
            "submissions_unclear": self.unclear,
            "rebuilt": self.rebuilt,
            "recovery": {name: quantiles(s) for name, s in sorted(self.recovery.items())},
            "wasted_per_fault": self.wasted_each(),
        }


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "faults": len(ordered),
        "median": round(statistics.median(ordered), 2),
        "p99": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 2),
    }


def write(totals: Totals) -> str:
    found = totals.figures()
    lines = [f"{'fault':<15}{'times':>6}{'median s':>10}{'p99 s':>8}{'wasted each, alone':>20}"]
    for name, seconds in sorted(totals.recovery.items()):
        told = quantiles(seconds)
        alone = found["wasted_per_fault"].get(name, "")  # type: ignore[attr-defined]
        lines.append(
            f"{name:<15}{told['faults']:>6}{told['median']:>10}{told['p99']:>8}{alone:>20}"
        )
    lines.append("")
    for name, value in found.items():
        if not isinstance(value, dict):
            lines.append(f"{name.replace('_', ' '):<22}{value}")
    lines += [f"  {v.kind:<10}{v.job} {v.text}" for v in totals.violations[:50]]
    return "\n".join([*lines, json.dumps(found)])
