"""Brings a job's images into a folder: in parallel, resumable by sha256, also while the
job still renders. Writes `images/NNNNNNNNN.png`, `metadata.jsonl` (one line per image
that is done) and `failures.jsonl` (rows that `submit` takes back); every file appears
whole or not at all."""

from __future__ import annotations

import hashlib
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
from promptmill.client.job import Image, Job
from promptmill.client.sources import ERROR_FIELD

AHEAD = 4  # images in flight per thread
TRIES = 4
TERMINAL = (jobs.ImageState.DONE, jobs.ImageState.FAILED)
ROW_FIELDS = ("negative_prompt", "seed", "steps", "guidance", "task", "source", "mask", "strength")
_DESCRIBED = (
    *("index", "row", "sample", "custom_id", "prompt", "negative_prompt", "seed", "steps"),
    *("guidance", "task", "model", "fingerprint", "width", "height", "bytes", "sha256", "score"),
    "metadata",
)
_IMPLIED = {"task": "text2image", "strength": 1.0, "negative_prompt": "", "steps": 0}


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
    task = _Task(job, folder, progress)
    with ThreadPoolExecutor(threads, thread_name_prefix="download") as pool:
        while True:
            started = time.monotonic()
            job.refresh()
            task.sweep(pool, threads * AHEAD)
            state = task.state()
            if state.finished or not follow:
                return state
            time.sleep(max(1.0, time.monotonic() - started))


class _Task:
    """One download: what is known to be in the folder."""

    def __init__(self, job: Job, folder: Path, progress: Progress | None) -> None:
        self._job, self._folder, self._progress = job, folder, progress
        self._images = folder / "images"
        self._images.mkdir(parents=True, exist_ok=True)
        format = str((job.data.get("output") or {}).get("format") or "png")
        self._extension = {"jpeg": "jpg"}.get(format, format)
        self._have = bytearray(job.counts.total)  # by index: 1 if it is in the folder
        self._present = self._bytes = self._fetched = self._failed = 0

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

    def sweep(self, pool: ThreadPoolExecutor, ahead: int) -> None:
        """Lists the job once and leaves the folder in step with the list."""
        with (
            _whole(self._folder / "metadata.jsonl") as metadata,
            _whole(self._folder / "failures.jsonl") as failures,
        ):
            errors_met = self._sweep(pool, ahead, metadata, failures)
        if errors_met:
            raise errors_met[0]

    def _sweep(
        self, pool: ThreadPoolExecutor, ahead: int, metadata: IO[bytes], failures: IO[bytes]
    ) -> list[errors.Error]:
        waiting: deque[tuple[Image, Future[int] | None]] = deque()
        met: list[errors.Error] = []
        self._failed = 0
        for image in self._job.images(state=TERMINAL):
            if image.state == jobs.ImageState.FAILED:
                self._failed += 1
                _write_line(failures, failed_row(image, self._job.id))
            else:
                known = self._have[image.index]
                waiting.append((image, None if known else pool.submit(self._ensure, image)))
            while len(waiting) >= ahead or (waiting and waiting[0][1] is None):
                met += self._settle(*waiting.popleft(), metadata)
        while waiting:
            met += self._settle(*waiting.popleft(), metadata)
        return met

    def _settle(
        self, image: Image, future: Future[int] | None, metadata: IO[bytes]
    ) -> list[errors.Error]:
        """Takes one image to its end: in the folder and described, or an error."""
        if future is not None:
            try:
                self._fetched += future.result()
            except errors.Error as exc:
                return [exc]
            self._have[image.index] = 1
            self._present += 1
            self._bytes += int(image.data.get("bytes") or 0)
            if self._progress is not None:
                self._progress(self.state())
        _write_line(metadata, self._described(image))
        return []

    def _path(self, image: Image) -> Path:
        return self._images / f"{image.index:09d}.{self._extension}"

    def _ensure(self, image: Image) -> int:
        """1 if the image had to be fetched, 0 if the folder has it."""
        path = self._path(image)
        if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == image.sha256:
            return 0
        data = self._fetch(image)
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(data)
        part.replace(path)
        return 1

    def _fetch(self, image: Image) -> bytes:
        """Its bytes, by its link or, when that fails, through the API."""
        links = [image.url] if image.url else []
        links += [f"{self._job.path}/images/{image.index}/content"] * TRIES
        failure: errors.Error = errors.NotFound(f"image {image.index} has no content")
        for attempt, link in enumerate(links):
            try:
                data = self._job.fetch(link)
                found = hashlib.sha256(data).hexdigest()
                if found == image.sha256 or not image.sha256:
                    return data
                failure = errors.StorageDown(
                    f"image {image.index} is damaged in the store (sha256 {found[:12]}…, not "
                    f"{image.sha256[:12]}…): `promptmill verify {self._job.id} --repair`"
                )
                failure.retry = False
            except errors.Error as exc:
                failure = exc
                if exc.retry and attempt + 1 < len(links):
                    pause = 0.5 * 2**attempt if exc.retry_after is None else exc.retry_after
                    time.sleep(min(pause, 10.0))
        raise failure

    def _described(self, image: Image) -> dict[str, Any]:
        data = image.data
        kept = {name: data[name] for name in _DESCRIBED if name in data}
        return {"file_name": f"images/{self._path(image).name}", "text": image.prompt} | kept


def failed_row(image: Image, job_id: str) -> dict[str, Any]:
    """A failed image as a row to submit again: what it asked for, the seed that it had, its
    metadata, and what went wrong under `_error`, which `submit` leaves out."""
    data = image.data
    row: dict[str, Any] = {"prompt": image.prompt}
    for name in ROW_FIELDS:
        if data.get(name) is not None and data[name] != _IMPLIED.get(name):
            row[name] = data[name]
    if data.get("width") and data.get("height"):
        row["size"] = f"{data['width']}x{data['height']}"
    if data.get("custom_id"):
        row["id"] = data["custom_id"]
    metadata: Mapping[str, Any] = data.get("metadata") or {}
    row |= {name: value for name, value in metadata.items() if name not in row}
    error: Mapping[str, Any] = data.get("error") or {}
    return row | {
        ERROR_FIELD: {
            "code": error.get("code"),
            "message": error.get("message"),
            "job": job_id,
            "index": image.index,
            "row": data.get("row"),
            "sample": data.get("sample"),
        }
    }


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
