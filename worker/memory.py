"""How much memory this process holds, and whether it has grown beyond measure."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

SETTLED_AFTER = 50  # micro-batches: until then buffers grow for good reasons


def held() -> int:
    """Bytes of this process in memory now; where the system does not tell, the most so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return pages * os.sysconf("SC_PAGE_SIZE")


class Growth:
    """Compares with what was held when the worker had settled."""

    def __init__(self, most: int) -> None:
        """most: bytes; 0 for any growth."""
        self.most = most
        self._base: int | None = None

    def excessive(self, *, batches: int, now: int) -> bool:
        """batches: micro-batches rendered so far. now: bytes held."""
        if not self.most or batches < SETTLED_AFTER:
            return False
        if self._base is None:
            self._base = now
        return now - self._base > self.most
