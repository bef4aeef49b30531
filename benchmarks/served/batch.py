"""What every service does with a batch, whoever collected it: render it, write a PNG each
(fsync), commit a row each (SQLite, synchronous=FULL), all before it answers. None of the peers
stores or records by itself.

Two batches may be in hand at once, in two threads or processes, so that one is stored while
the other renders; the lock file stands for the one device that they share."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import work

MODEL, FOLDER = "BENCH_MODEL", "BENCH_FOLDER"  # what the parent process tells
ROWS = "rows.db"
WRITERS = 16  # a journal merges syncs that wait together: 32 files cost a few syncs, not 32


def rows(folder: Path) -> sqlite3.Connection:
    db = sqlite3.connect(folder / ROWS, isolation_level=None, timeout=30)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE IF NOT EXISTS images (number INTEGER PRIMARY KEY, bytes INTEGER)")
    return db


class Renderer:
    """The generator of one process, loaded and warm, and the folder that it fills."""

    def __init__(self) -> None:
        self.model, self.folder = os.environ[MODEL], Path(os.environ[FOLDER])
        self._generator = work.generator(self.model)
        self._writers = ThreadPoolExecutor(WRITERS)
        self._local = threading.local()

    def __call__(self, asked: Sequence[dict[str, Any]]) -> list[int]:
        """Renders and stores what `work.row` made of the items; the bytes of each picture."""
        chunk = [work.item(row) for row in asked]
        with self._device():
            pixels = self._generator.generate(chunk)
        made = work.pngs(pixels, self.model, chunk)
        numbers = [item.index for item in chunk]
        list(self._writers.map(self._write, numbers, made))
        sizes = [len(data) for data in made]
        self._commit(list(zip(numbers, sizes, strict=True)))
        return sizes

    @contextmanager
    def _device(self) -> Iterator[None]:
        with (self.folder / "device.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, number: int, data: bytes) -> None:
        with (self.folder / f"{number}.png").open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def _commit(self, values: Sequence[tuple[int, int]]) -> None:
        if not hasattr(self._local, "db"):
            self._local.db = rows(self.folder)
        db = self._local.db
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT OR IGNORE INTO images VALUES (?, ?)", values)
        db.execute("COMMIT")
