"""Brings a job's images into a folder: in parallel, resumable by sha256, also while the
job still renders. Writes `images/NNNNNNNNN.png`, `metadata.jsonl` (one line per image
that is done) and `failures.jsonl` (rows that `submit` takes back); every file appears
whole or not at all."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from promptmill import errors, jobs
from promptmill.client.image import Image
from promptmill.client.job import Job
from promptmill.client.pictures import Brought, Pictures

LOT = 500  # images that are looked for, and brought, together
TRIES = 4  # to bring the failed rows
_DESCRIBED = (
    *("index", "row", "sample", "custom_id", "prompt", "negative_prompt", "seed", "steps"),
    *(
        "guidance",
        "task",
        "source",
        "mask",
        "strength",
        "lora",
        "model",
        "fingerprint",
        "width",
        "height",
        "bytes",
        "sha256",
        "score",
        "below_min_score",
        "rerolls",
    ),
    "metadata",
)


@dataclass(frozen=True, slots=True)
class Download:
    """How far the folder is. total: images of the job; present: of them in the folder;
    fetched: of them by this call; failed: images that have no picture."""

    total: int
    present: int
    fetched: int
    failed: int
    bytes: int
    finished: bool  # nothing more will come


Progress = Callable[[Download], None]


def download(
    job: Job, folder: Path, *, threads: int = 8, follow: bool = False, progress: Progress | None
) -> Download:
    """Fetches what is done and not yet in `folder` with its sha256. follow: goes on until
    the job is finished. Raises `errors.Error` when an image cannot be fetched (all others
    are) and `OSError` when the folder cannot be written."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="download")
    task = _Task(job, folder, pool, progress)
    try:
        while True:
            started = time.monotonic()
            job.refresh()
            task.sweep(threads)
            state = task.state()
            if state.finished or not follow:
                return state
            time.sleep(max(1.0, time.monotonic() - started))
    finally:
        task.pictures.stop()
        pool.shutdown(cancel_futures=True)


@dataclass(slots=True)
class _Step:
    """Some images in row order and, for those not known to be there, what brings them."""

    images: list[Image]
    bringing: Future[Brought] | None


class _Task:
    """One download: what is known to be in the folder."""

    def __init__(
        self, job: Job, folder: Path, pool: ThreadPoolExecutor, progress: Progress | None
    ) -> None:
        self._job, self._folder, self._pool, self._progress = job, folder, pool, progress
        format = str((job.data.get("output") or {}).get("format") or "png")
        extension = {"jpeg": "jpg"}.get(format, format)
        if not (extension.isascii() and extension.isalnum()):  # it becomes part of a path
            raise errors.Error(f"the farm names the format {format!r}, which is none")
        self.pictures = Pictures(job, folder / "images", extension)
        self._have = bytearray(job.counts.total)  # by index: 1 if it is in the folder
        self._present = self._bytes = self._fetched = self._failed = 0
        self._error: errors.Error | None = None

    def state(self) -> Download:
        counts = self._job.counts
        return Download(
            total=counts.total,
            present=self._present,
            fetched=self._fetched,
            failed=self._failed,
            bytes=self._bytes,
            finished=self._job.finished and self._present >= counts.done,
        )

    def sweep(self, ahead: int) -> None:
        """Lists the job once and leaves the folder in step with the list. ahead: steps that
        may wait for their turn."""
        self._error = None
        with _whole(self._folder / "metadata.jsonl") as metadata:
            waiting: deque[_Step] = deque()
            for images in self._lots():
                new = [image for image in images if not self._have[image.index]]
                bringing = self._pool.submit(self.pictures.bring, new) if new else None
                waiting.append(_Step(images, bringing))
                while len(waiting) > ahead:
                    self._settle(waiting.popleft(), metadata)
            while waiting:
                self._settle(waiting.popleft(), metadata)
        with _whole(self._folder / "failures.jsonl") as failures:
            self._failed = self._list_failed(failures)
        if self._error is not None:
            raise self._error

    def _lots(self) -> Iterator[list[Image]]:
        """The done images as the farm lists them, some at a time."""
        images = self._job.images(state=jobs.ImageState.DONE)
        while lot := list(itertools.islice(images, LOT)):
            yield lot

    def _list_failed(self, failures: IO[bytes]) -> int:
        """The failed images as the farm's rows of them, each with what went wrong; how many.
        Begins again when they break off."""
        for attempt in range(1, TRIES + 1):
            failures.seek(0)
            failures.truncate()
            found = 0
            try:
                for piece in self._job.stream("failures/rows", params={"reasons": True}):
                    found += piece.count(b"\n")
                    failures.write(piece)
            except errors.Error as error:
                if attempt == TRIES or not error.retry:
                    raise
                time.sleep(attempt)
            else:
                return found
        raise AssertionError("unreachable")

    def _settle(self, step: _Step, metadata: IO[bytes]) -> None:
        """Takes images to their end: in the folder and described, or the reason why not."""
        brought = step.bringing.result() if step.bringing else Brought(frozenset(), ())
        singly = {
            image.index: self._pool.submit(self.pictures.bring_one, image) for image in brought.left
        }
        for image in step.images:
            try:
                if image.index in singly:
                    singly[image.index].result()
            except errors.Error as exc:
                self._error = self._error or exc
                continue
            if not self._have[image.index]:
                self._arrived(image, new=image.index in brought.missing)
            _write_line(metadata, self._described(image))

    def _arrived(self, image: Image, *, new: bool) -> None:
        self._have[image.index] = 1
        self._fetched += new
        self._present += 1
        self._bytes += int(image.data.get("bytes") or 0)
        if self._progress is not None:
            self._progress(self.state())

    def _described(self, image: Image) -> dict[str, Any]:
        data = image.data
        kept = {name: data[name] for name in _DESCRIBED if name in data}
        file = f"images/{self.pictures.name(image)}"
        return {"file_name": file, "text": image.expanded_prompt} | kept


def _write_line(file: IO[bytes], line: Mapping[str, Any]) -> None:
    file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name when it is written to its end, also after an error in one
    image: what it lists is there."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
