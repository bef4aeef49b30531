"""Many pictures as one uncompressed tar, made while it is sent: a few megabytes of memory
however long it is. Knows no request and no database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from promptmill import records
from promptmill.blobs import CHUNK, BlobStore, gather, tar


def stream(blobs: BlobStore, images: Iterable[records.Image], extension: str) -> Iterator[bytes]:
    """The archive of `images`, all done, in their order, in pieces of about `CHUNK` bytes.
    What is not in the store is left out. Raises `errors.StorageDown` in its midst."""
    waiting = bytearray()
    for image, data in gather.pictures(blobs, images):
        if data is None:
            continue
        waiting += tar.member(f"{image.item.index:09d}.{extension}", data)
        if len(waiting) >= CHUNK:
            yield bytes(waiting)
            waiting.clear()
    yield bytes(waiting) + tar.END
