"""The log of a training run: JSON lines in its folder, TensorBoard where that is installed, a
progress bar on a terminal and the lines themselves elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINES = "log.jsonl"
BOARD = "tensorboard"  # the folder of its event files, inside the run's


class Journal:
    """Of a run in the folder `out` that stands at `step` of `steps`. What an interrupted run
    logged beyond that step is dropped: the steps come again."""

    def __init__(self, out: Path, *, step: int, steps: int) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._path = out / LINES
        _keep(self._path, step)
        self._board = _board(out / BOARD, step)
        columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns) if sys.stdout.isatty() else None
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task("step", total=steps, completed=step)

    def scalars(self, step: int, told: Mapping[str, float]) -> None:
        """Figures of a step, by name."""
        line = json.dumps({"step": step} | {name: round(v, 5) for name, v in told.items()})
        with self._path.open("a") as file:
            file.write(line + "\n")
        if self._bar:
            self._bar.console.print(line, highlight=False)
        else:
            print(line, flush=True)
        if self._board:
            for name, value in told.items():
                self._board.add_scalar(name, value, step)

    def picture(self, step: int, path: Path) -> None:
        """A sheet of samples that lies at `path`."""
        if self._board:
            with Image.open(path) as file:
                pixels = np.asarray(file.convert("RGB"))
            self._board.add_image("samples", pixels, step, dataformats="HWC")

    def at(self, step: int) -> None:
        """Moves the bar."""
        if self._bar:
            self._bar.update(self._task, completed=step)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()
        if self._board:
            self._board.close()


def _keep(path: Path, step: int) -> None:
    """Leaves the lines up to `step`; one that was torn while it was written goes too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if told["step"] <= step:
            kept.append(line + "\n")
    path.write_text("".join(kept))


def _board(folder: Path, step: int) -> Any:
    """TensorBoard's writer, or None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)
