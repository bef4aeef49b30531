"""What of this processor decides the bits of a picture, without torch."""

from __future__ import annotations

import functools
import platform
import re
from pathlib import Path

INFO = Path("/proc/cpuinfo")
LEVELS = ("avx512_vnni", "avx_vnni", "avx512f", "avx2")  # the best first


@functools.cache
def level() -> str:
    """The machine, and of an x86 the best of the instruction sets that matter here."""
    machine = platform.machine().lower()
    if machine not in ("x86_64", "amd64"):
        return machine
    flags = _flags()
    return f"{machine} {next((name for name in LEVELS if name in flags), 'sse')}"


@functools.cache
def make() -> str:
    """Who made the processor, and which: libraries choose the order of their float sums by it
    (Intel and AMD with the same instruction sets differ in a byte here and there)."""
    found = (
        _info(name) for name in ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part")
    )
    return " ".join(filter(None, found)) or platform.processor()


def tiles() -> list[str]:
    """The matrix unit of an Intel processor, where it has one for int8: its kernels sum the same
    integers, and round what they scale to codes differently where a value is on the edge."""
    return sorted(_flags() & {"amx_int8"})


def _flags() -> frozenset[str]:
    return frozenset(_info("flags").split())


def _info(name: str) -> str:
    """What Linux says of the first core; empty elsewhere."""
    try:
        text = INFO.read_text()
    except OSError:
        return ""
    found = re.search(rf"^{name}\s*:(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""
