"""The pictures of one job in one folder: which are there with their sha256, and how the
others come, by the archive or one by one. A file has its name only when its bytes are
right, and is not synced: after a crash its sha256 tells whether it must come again."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from promptmill import errors
from promptmill.client.image import Image
from promptmill.client.job import Job

TRIES = 4
FEW = 8  # images that need no archive
SPARSE = 4  # an archive may carry so many pictures for each that is missing
LARGE = 262_144  # bytes of a picture from which on a request of its own costs little


@dataclass(frozen=True, slots=True)
class Brought:
    """What became of some images. missing: indexes of those that were not there; left: of
    them, those that did not come with an archive."""

    missing: frozenset[int]
    left: tuple[Image, ...]


class Pictures:
    """Thread-safe, as long as no two threads bring the same image. extension: of files."""

    def __init__(self, job: Job, folder: Path, extension: str) -> None:
        self._job, self._folder, self._extension = job, folder, extension
        self._archives = True  # until the farm says that it has none
        self._stopped = threading.Event()
        folder.mkdir(parents=True, exist_ok=True)

    def stop(self) -> None:
        """What brings pictures now returns soon."""
        self._stopped.set()

    def name(self, image: Image) -> str:
        return f"{image.index:09d}.{self._extension}"

    def has(self, image: Image) -> bool:
        try:
            data = (self._folder / self.name(image)).read_bytes()
        except FileNotFoundError:
            return False
        return hashlib.sha256(data).hexdigest() == image.sha256

    def bring(self, images: Sequence[Image]) -> Brought:
        """Sees which of `images` (done, in index order) are not here, and brings those that
        an archive brings faster than one by one. Raises `OSError`."""
        missing = [image for image in images if not self.has(image)]
        wanted = {image.index: image for image in missing}
        if self._archives and _suits(images, missing):
            self._unpack([image.index for image in images], wanted)
        return Brought(frozenset(image.index for image in missing), tuple(wanted.values()))

    def _unpack(self, listed: Sequence[int], wanted: dict[int, Image]) -> None:
        """Takes out of `wanted` what came. Images may have been finished since the farm
        listed these: then one archive does not reach the last. A broken one is gone on with
        behind its last picture."""
        cursor, last, tries = min(wanted) - 1, max(wanted), 0
        while not self._stopped.is_set() and any(index > cursor for index in wanted):
            first = min(index for index in wanted if index > cursor)
            limit = sum(first <= index <= last for index in listed)
            try:
                with self._job.archive(after=first - 1 if first else None, limit=limit) as archive:
                    for index, data in archive.pictures():
                        cursor = index
                        if self._keep(wanted.get(index), data):
                            del wanted[index]
                        if self._stopped.is_set():
                            return
                    cursor = last if archive.last is None else max(first, archive.last)
            except errors.Error as exc:
                self._archives = self._archives and exc.retry
                tries += 1
                if not exc.retry or tries == TRIES:
                    return
                _pause(exc, tries - 1)

    def _keep(self, image: Image | None, data: bytes) -> bool:
        """Puts the bytes into the folder if they are those of `image`."""
        if image is None or hashlib.sha256(data).hexdigest() != image.sha256:
            return False
        self._write(image, data)
        return True

    def _write(self, image: Image, data: bytes) -> None:
        path = self._folder / self.name(image)
        part = self._folder / f".{self.name(image)}.part"
        part.write_bytes(data)
        part.replace(path)

    def bring_one(self, image: Image) -> None:
        """Fetches it by its link or, when that fails, through the API. Raises
        `errors.Error` and `OSError`."""
        self._write(image, self._fetch(image))

    def _fetch(self, image: Image) -> bytes:
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
                    _pause(exc, attempt)
        raise failure


def _suits(images: Sequence[Image], missing: Sequence[Image]) -> bool:
    """Whether an archive from the first to the last missing image is worth its bytes."""
    if len(missing) < FEW:
        return False
    if sum(int(image.data.get("bytes") or 0) for image in missing) >= LARGE * len(missing):
        return False
    first, last = missing[0].index, missing[-1].index
    return sum(first <= image.index <= last for image in images) <= SPARSE * len(missing)


def _pause(exc: errors.Error, attempt: int) -> None:
    wait = 0.5 * 2**attempt if exc.retry_after is None else exc.retry_after
    time.sleep(min(wait, 10.0))
