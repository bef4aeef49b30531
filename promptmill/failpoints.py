"""Named sites where a test can make a process die, hang or fail. Off unless armed by
PROMPTMILL_FAILPOINTS, as `site=action[*times]`, comma-separated; actions: `exit` (as if
killed), `hang` (five seconds), `down` (the server behind the step does not answer)."""

from __future__ import annotations

import os
import signal
import threading
import time

from promptmill import errors

HANG_SECONDS = 5.0
ACTIONS = ("exit", "hang", "down")

_armed: dict[str, tuple[str, int]] = {}
_lock = threading.Lock()


def arm(text: str) -> None:
    """Parses the setting. Raises `errors.SettingInvalid`."""
    _armed.clear()
    for part in filter(None, (p.strip() for p in text.split(","))):
        site, _, action = part.partition("=")
        action, _, times = action.partition("*")
        if action not in ACTIONS or not (times or "1").isdigit():
            raise errors.SettingInvalid(
                f"PROMPTMILL_FAILPOINTS: {part!r} is not site=action[*times], action one of"
                f" {', '.join(ACTIONS)}"
            )
        _armed[site] = (action, int(times or 1))


def reach(site: str) -> None:
    """The program passes `site`: does what is armed for it, as often as it is armed."""
    if not _armed:
        return
    with _lock:
        action, left = _armed.get(site, ("", 0))
        if left:
            _armed[site] = (action, left - 1)
    if not left:
        return
    if action == "exit":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "hang":
        time.sleep(HANG_SECONDS)
    else:
        raise errors.Unavailable(f"failpoint {site}")
