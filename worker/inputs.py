"""What items start from: the source picture of each and its mask, read from the store of
objects, decoded and brought to the item's size, the last few kept in memory."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from promptmill import errors, jobs, keys, pictures
from promptmill.blobs import BlobStore
from promptmill.records import Work
from worker.generators.base import Input
from worker.outcomes import Fault

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MISSING, DAMAGED = "source_missing", "source_damaged"
KEPT = 64 << 20  # bytes of decoded pictures
GROUND = "white"  # what shows where a source is transparent
CLEAR = 128  # of 255: from here on a pixel of a mask counts


@dataclass(frozen=True, slots=True)
class Ready:
    """An item that can be rendered. item: that of `work`, its prompt written out where it
    asks for that. input: what it starts from."""

    work: Work
    item: jobs.Item
    input: Input | None


class Inputs:
    """Thread-safe. Files are known by their hash, so what is kept is never stale."""

    def __init__(self, blobs: BlobStore, *, max_bytes: int = KEPT) -> None:
        self._blobs = blobs
        self._max = max_bytes
        self._kept: OrderedDict[tuple[str, str, int, int], NDArray[np.uint8]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def of(self, work: Work) -> Input | Fault | None:
        """None for a task without a source; a fault when its file is gone or damaged.
        Raises `errors.StorageDown`."""
        item = work.item
        if item.task not in jobs.SOURCE_TASKS or item.source is None:
            return None
        try:
            pixels = self._picture(work, "source", item.source)
            mask = None if item.mask is None else self._picture(work, "mask", item.mask)
        except errors.NotFound as error:
            return Fault(MISSING, str(error))
        except errors.BadRow as error:
            return Fault(DAMAGED, str(error))
        return Input(pixels, mask)

    def _picture(self, work: Work, role: str, sha256: str) -> NDArray[np.uint8]:
        item = work.item
        name = (role, sha256, item.width, item.height)
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name]
        image, _ = pictures.decode(self._read(work, role, sha256))
        made = (_pixels if role == "source" else _mask)(image, (item.width, item.height))
        made.flags.writeable = False
        self._keep(name, made)
        return made

    def _read(self, work: Work, role: str, sha256: str) -> bytes:
        try:
            data = self._blobs.read(keys.source(work.output, work.job, sha256=sha256))
        except errors.NotFound:
            raise errors.NotFound(f"the {role} {sha256} is gone from the store") from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise errors.BadRow(f"the {role} {sha256} has other bytes now")
        return data

    def _keep(self, name: tuple[str, str, int, int], made: NDArray[np.uint8]) -> None:
        with self._lock:
            if name in self._kept:
                return
            self._kept[name] = made
            self._bytes += made.nbytes
            while self._bytes > self._max:
                _, gone = self._kept.popitem(last=False)
                self._bytes -= gone.nbytes


def _pixels(image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]: on white, scaled to cover the size and cut at the middle. A picture
    that has the size already keeps its bytes."""
    import numpy as np

    if image.mode == "RGBA":
        ground = Image.new("RGBA", image.size, GROUND)
        image = Image.alpha_composite(ground, image).convert("RGB")
    return np.array(ImageOps.fit(image, size, Image.Resampling.LANCZOS))


def _mask(image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 [H, W] of 0 and 255: where a mask with transparency is clear, or where one
    without is white, the picture is made anew. Scaled and cut as the source is."""
    import numpy as np

    clear = pictures.is_transparent(image)
    band = ImageOps.fit(
        image.getchannel("A") if clear else image.convert("L"), size, Image.Resampling.NEAREST
    )
    values = np.array(band)
    anew = values < CLEAR if clear else values >= CLEAR
    return np.where(anew, np.uint8(255), np.uint8(0))
