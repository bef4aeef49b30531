"""The file that health checks read: DATA_DIR/health/control-<pid>.json, replaced in one
step, and only while every watched line makes progress. A disk that is full ends nobody: the
file grows old, which is what it is read for."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from worker.control.loop import Line

log = logging.getLogger("promptmill.control")

STALLED = 120.0  # seconds without a finished round


class Health:
    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / "health" / f"control-{os.getpid()}.json"
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, *, leader: bool, lines: Sequence[Line], counts: Mapping[str, int]) -> None:
        """Touches nothing while a watched line hangs: the file's age is what tells."""
        if any(line.watched and time.monotonic() - line.beat_at > STALLED for line in lines):
            return
        body = {
            "at": time.time(),
            "pid": os.getpid(),
            "leader": leader,
            "counts": dict(counts),
            "duties": {
                name: asdict(record) for line in lines for name, record in line.records.items()
            },
        }
        fresh = self.path.with_suffix(f".new-{os.getpid()}")
        try:
            fresh.write_text(json.dumps(body))
            fresh.replace(self.path)
        except OSError as error:
            log.warning("health.unwritten", extra={"error": str(error)})
            with contextlib.suppress(OSError):
                fresh.unlink()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
