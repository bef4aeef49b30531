"""Temporary files of a folder. Each is locked while its writer lives, so that those of the
dead are told from those in use."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Draft:
    """Bytes under a temporary name."""

    fd: int
    path: Path
    sha256: str
    size: int


class Drafts:
    """Those in `folder`, which is made when it is first needed. Every call may raise
    `OSError`. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def of(self, pieces: Iterable[bytes]) -> Iterator[Draft]:
        """The bytes under a temporary name, locked, not yet synced; gone afterwards."""
        fd, path = self._locked()
        try:
            sha256, size = hashlib.sha256(), 0
            for piece in pieces:
                sha256.update(piece)
                size += len(piece)
                _write_all(fd, piece)
            yield Draft(fd, path, sha256.hexdigest(), size)
        finally:
            path.unlink(missing_ok=True)
            os.close(fd)

    def put(self, path: Path, data: bytes) -> None:
        """Writes a whole file in place of what may be there, or, when it raises, nothing."""
        fd, draft = self._locked()
        try:
            _write_all(fd, data)
            draft.replace(path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)

    def remove_dead(self) -> None:
        """Removes those whose writer has died."""
        for path in self._folder.glob("*"):
            with (
                contextlib.suppress(FileNotFoundError, BlockingIOError),
                path.open("rb") as file,
            ):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)

    def _locked(self) -> tuple[int, Path]:
        while True:
            self._folder.mkdir(parents=True, exist_ok=True)
            fd, name = tempfile.mkstemp(dir=self._folder)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                os.fchmod(fd, 0o644)
                return fd, Path(name)
            os.close(fd)  # taken for a dead one before it was locked


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
