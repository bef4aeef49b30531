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


def exact_int8() -> bool:
    """Whether sums of products of int8 are exact in the usual kernels: older x86 instructions
    saturate a sum of two products at 16 bits."""
    return level().startswith(("aarch64", "arm64")) or level().endswith("vnni")


def _flags() -> frozenset[str]:
    try:
        text = INFO.read_text()
    except OSError:
        return frozenset()
    found = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()
