"""Runs a command that cannot outlive the process that started it, even when that one is
killed by SIGKILL: `python tether.py [--watch] PARENT_PID COMMAND…`.

On Linux the kernel does it (PR_SET_PDEATHSIG survives exec, so this file becomes the
command). Elsewhere, or with `--watch`, this process stays and watches its standard input,
a pipe whose other end only the parent holds. Imports nothing of promptmill."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1


def run(parent: int, command: list[str]) -> None:
    """Becomes `command`, to be killed when the thread that started this process ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    os.execvp(command[0], command)  # noqa: S606


def watch(command: Sequence[str]) -> int:
    """Runs `command` as a child, passes SIGTERM and SIGINT on, kills it when standard input
    ends. Its exit status."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: child.send_signal(received))

    def kill_when_alone() -> None:
        while os.read(0, 4096):
            pass
        child.kill()

    threading.Thread(target=kill_when_alone, daemon=True).start()
    code = child.wait()
    return code if code >= 0 else 128 - code


def main(arguments: Sequence[str]) -> int:
    watching = arguments[0] == "--watch"
    parent, *command = arguments[watching:]
    if watching or sys.platform != "linux":
        return watch(command)
    run(int(parent), command)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
