"""Many pictures out of the store in few reads: pictures that are neighbours in one object are
one. Holds a few megabytes at once. Knows no request and no database."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from promptmill import errors, records
from promptmill.blobs import BlobStore

log = logging.getLogger("promptmill.blobs")

WINDOW = 2_000_000  # bytes of pictures held at once; one that is larger stands alone
GAP = 8192  # bytes between two pictures of an object, up to which both are one read
READERS = 8


@dataclass(frozen=True, slots=True)
class _Reading:
    """A range of an object, and the pictures inside it. length: None for all of it."""

    key: str
    offset: int
    length: int | None
    images: tuple[records.Image, ...]


def pictures(
    blobs: BlobStore, images: Iterable[records.Image]
) -> Iterator[tuple[records.Image, bytes | None]]:
    """Each of `images`, all done, in their order with its bytes; None for what is not in the
    store. Raises `errors.StorageDown` in its midst."""
    with ThreadPoolExecutor(READERS, thread_name_prefix="gather") as pool:
        for window in _windows(images):
            found = _read(blobs, pool, window)
            for image in window:
                yield image, found.get(image.item.index)


def _windows(images: Iterable[records.Image]) -> Iterator[list[records.Image]]:
    """Runs of images that fit into memory together."""
    window: list[records.Image] = []
    size = 0
    for image in images:
        if window and size + image.bytes > WINDOW:
            yield window
            window, size = [], 0
        window.append(image)
        size += image.bytes
    if window:
        yield window


def _read(
    blobs: BlobStore, pool: ThreadPoolExecutor, window: Sequence[records.Image]
) -> dict[int, bytes]:
    """The pictures of a window that are there, by index."""
    readings = _readings(window)
    found: dict[int, bytes] = {}
    shares = [readings[n::READERS] for n in range(min(READERS, len(readings)))]
    for pictures in pool.map(lambda share: [_take(blobs, reading) for reading in share], shares):
        for taken in pictures:
            found |= taken
    return found


def _readings(window: Iterable[records.Image]) -> list[_Reading]:
    """As few ranges as hold all pictures: an object's neighbours are one."""
    in_parts = [image for image in window if image.length is not None]
    readings = [_Reading(i.key, 0, None, (i,)) for i in window if i.key and i.length is None]
    in_parts.sort(key=lambda image: (image.key or "", image.offset or 0))
    for key, group in itertools.groupby(in_parts, key=lambda image: image.key or ""):
        readings += [_over(key, run) for run in _runs(group)]
    return readings


def _runs(images: Iterable[records.Image]) -> Iterator[list[records.Image]]:
    """Images of one object, sorted by offset, split where there is too much in between."""
    run: list[records.Image] = []
    end = 0
    for image in images:
        offset = image.offset or 0
        if run and offset - end > GAP:
            yield run
            run = []
        run.append(image)
        end = max(end, offset + (image.length or 0))
    if run:
        yield run


def _over(key: str, run: Sequence[records.Image]) -> _Reading:
    first = run[0].offset or 0
    end = max((image.offset or 0) + (image.length or 0) for image in run)
    return _Reading(key, first, end - first, tuple(run))


def _take(blobs: BlobStore, reading: _Reading) -> dict[int, bytes]:
    """The pictures that one reading brings: none of an object that is gone, only those that
    are whole of one that was cut short."""
    try:
        data = blobs.read(reading.key, offset=reading.offset, length=reading.length)
    except errors.NotFound:
        log.warning("%s is gone: %d images left out", reading.key, len(reading.images))
        return {}
    if reading.length is None:
        return {image.item.index: data for image in reading.images}
    taken = {}
    for image in reading.images:
        start = (image.offset or 0) - reading.offset
        picture = data[start : start + (image.length or 0)]
        if len(picture) == image.length:
            taken[image.item.index] = picture
    return taken
