"""Processor time of all processes below this one, by what they are: who is busy while a
benchmark runs."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def seconds(named: Mapping[int, str]) -> dict[str, float]:
    """By name since each process began: the name that is given for it, for its parent if that
    has one, or else that of its program."""
    found = _processes()
    spent: dict[str, float] = defaultdict(float)
    for pid, (_, program, ticks) in found.items():
        line = _line(pid, found)
        if line[-1] == os.getpid() and pid != os.getpid():
            name = next((named[one] for one in line if one in named), program)
            spent[name] += ticks / TICKS
    return dict(spent)


def between(
    before: Mapping[str, float], after: Mapping[str, float], wall: float
) -> dict[str, float]:
    """Processors kept busy by each name, the busiest first."""
    busy = {name: (spent - before.get(name, 0.0)) / wall for name, spent in after.items()}
    return dict(sorted(busy.items(), key=lambda one: -one[1]))


def _processes() -> dict[int, tuple[int, str, int]]:
    """Parent, program and ticks of each process."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, rest = stat.read_text().rpartition(") ")
        except OSError:
            continue  # it has just ended
        fields = rest.split()
        pid, _, program = head.partition(" (")
        found[int(pid)] = (int(fields[1]), program, int(fields[11]) + int(fields[12]))
    return found


def _line(pid: int, found: Mapping[int, tuple[int, str, int]]) -> list[int]:
    """The process, its parent and so on, up to this process or the first of all."""
    line = [pid]
    while line[-1] != os.getpid() and line[-1] in found:
        line.append(found[line[-1]][0])
    return line
