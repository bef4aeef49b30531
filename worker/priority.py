"""Who gets the processor first, where rendering and answering share one."""

from __future__ import annotations

import os
import sys
import threading

NICE, LEAST = 10, 19


def step_back() -> None:
    """Lowers the priority of this thread: what renders bulk leaves the processor first to the
    API, and to the slot of whoever waits for one picture. For good: no thread may raise it."""
    if sys.platform == "linux":  # elsewhere the number of a thread may be that of a process
        thread = threading.get_native_id()
        now = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(LEAST, now + NICE))
