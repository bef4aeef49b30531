"""What every benchmark prints: a table for people, one JSON line for programs."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value. aim: what it should reach; better: `higher` or `lower`. low, high:
    of the rounds whose median the value is."""

    name: str
    value: float
    unit: str
    aim: float | None = None
    better: str = "higher"
    low: float | None = None
    high: float | None = None

    @classmethod
    def of_rounds(
        cls,
        name: str,
        values: Iterable[float],
        unit: str,
        aim: float | None = None,
        better: str = "higher",
    ) -> Figure:
        each = sorted(values)
        return cls(name, statistics.median(each), unit, aim, better, each[0], each[-1])


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version()}


def report(benchmark: str, figures: Sequence[Figure], **settings: Any) -> dict[str, Any]:
    """settings: what a reader must know to judge the figures: sizes, and what is durable."""
    return {
        "benchmark": benchmark,
        "machine": machine(),
        "settings": settings,
        "results": [asdict(figure) for figure in figures],
    }


def show(benchmark: str, figures: Iterable[Figure], **settings: Any) -> None:
    """Prints the settings, each figure as soon as it is there, so that a run that is cut off
    leaves what it found, and at last the report as one JSON object."""
    for name, value in settings.items():
        print(f"{name}: {value}", flush=True)
    found = []
    for f in figures:
        found.append(f)
        aim = "" if f.aim is None else f"   (aim {f.aim:g}, {f.better} is better)"
        rounds = "" if f.low is None else f"   ({f.low:.4g} to {f.high:.4g})"
        print(f"{f.value:>12.4g} {f.unit:<10} {f.name}{rounds}{aim}", flush=True)
    print(json.dumps(report(benchmark, found, **settings)))
