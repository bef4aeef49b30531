"""Named sites where a test can make a process die, hang or fail. Off unless armed by
PROMPTMILL_FAILPOINTS: either `site=action[*times]`, comma-separated, or `@FOLDER`, where a
file named like a site holds its action and whichever process gets there first takes it.

Every site stands behind its step, so that the step has happened when its caller is told
otherwise. Actions: `exit` (as if killed), `freeze` (the whole process stops until somebody
sends SIGCONT), `hang` (this thread, for five seconds, `hang:2` for two), `down` (the server
behind the step does not answer), `error` (an error that nobody foresaw)."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from pathlib import Path

from promptmill import errors

HANG_SECONDS = 5.0
ACTIONS = ("exit", "freeze", "hang", "down", "error")
SIGNALS = {"exit": signal.SIGKILL, "freeze": signal.SIGSTOP}
SITES = frozenset(
    {
        *("submit.begun", "submit.written", "submit.committed", "submit.enqueued"),
        *("lease.replied", "slot.leased", "slot.fetched", "slot.rendered", "slot.encoded"),
        *("slot.put", "slot.committed", "slot.acknowledged", "slot.returned"),
        *("reaper.recorded", "reaper.returned", "rebuild.filling", "rebuild.opened"),
        *("audit.repaired", "finaliser.ended", "finaliser.cleared", "sweep.deleted"),
        "batch.accepted",
        *("export.claimed", "export.data", "export.put", "export.marked", "export.sealed"),
    }
)
_TIMES = re.compile(r"[0-9]{1,9}", re.ASCII)

_armed: dict[str, tuple[str, int]] = {}
_folder: Path | None = None
_lock = threading.Lock()


class Unforeseen(Exception):
    """What the action `error` raises: none of the errors that the program knows."""


def arm(text: str) -> None:
    """Parses the setting. Raises `errors.SettingInvalid`."""
    global _folder
    _armed.clear()
    _folder = Path(text[1:]) if text.startswith("@") else None
    if _folder is not None:
        return
    for part in filter(None, (p.strip() for p in text.split(","))):
        site, _, action = part.partition("=")
        action, _, times = action.partition("*")
        if site not in SITES or not _known(action) or not _TIMES.fullmatch(times or "1"):
            raise errors.SettingInvalid(
                f"PROMPTMILL_FAILPOINTS: {part!r} is not site=action[*times], action one of"
                f" {', '.join(ACTIONS)}, site one of {', '.join(sorted(SITES))}"
            )
        _armed[site] = (action, int(times or 1))


def _known(action: str) -> bool:
    name, _, seconds = action.partition(":")
    return name in ACTIONS and (not seconds or name == "hang")


def reach(site: str) -> None:
    """The program passes `site`: does what is armed for it, as often as it is armed."""
    if not _armed and _folder is None:
        return
    action, _, seconds = (_taken(_folder, site) if _folder else _counted(site)).partition(":")
    if action in SIGNALS:
        os.kill(os.getpid(), SIGNALS[action])
    elif action == "hang":
        time.sleep(float(seconds or HANG_SECONDS))
    elif action == "down":
        raise errors.Unavailable(f"failpoint {site}")
    elif action == "error":
        raise Unforeseen(f"failpoint {site}")


def _counted(site: str) -> str:
    with _lock:
        action, left = _armed.get(site, ("", 0))
        if left:
            _armed[site] = (action, left - 1)
    return action if left else ""


def _taken(folder: Path, site: str) -> str:
    """The file disappears before the action: its absence says that the site was reached."""
    mine = folder / f".{site}.{os.getpid()}.{threading.get_ident()}"
    try:
        (folder / site).rename(mine)
    except FileNotFoundError:
        return ""
    action = mine.read_text().strip()
    mine.unlink()
    return action
