"""Small copies of pictures for grids, made when they are first asked for and kept in a bounded
memory. A function of the picture's bytes and a size, so what is made never goes stale; knows
no job and no request."""

from __future__ import annotations

import enum
import io
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import PIL.Image

from promptmill import errors

HELD_BYTES: Final = 64 << 20
AS_IT_IS: Final = 16 << 10  # bytes up to which a picture that fits is its own thumbnail
QUALITY: Final = 80
_KINDS: Final = {"PNG": "image/png", "WEBP": "image/webp", "JPEG": "image/jpeg"}


class Size(enum.IntEnum):
    """Pixels of the longer side; few sizes, so that copies are shared."""

    SMALL = 128
    MEDIUM = 256
    LARGE = 512


@dataclass(frozen=True, slots=True)
class Thumbnail:
    data: bytes
    media_type: str


def make(data: bytes, size: int) -> Thumbnail:
    """The picture within `size` x `size` pixels, never enlarged, as WebP: or as it is, where
    it fits and is small already. Raises `errors.NotFound` for bytes that are no picture."""
    try:
        with PIL.Image.open(io.BytesIO(data)) as picture:
            kind = _KINDS.get(picture.format or "")
            if kind and max(picture.size) <= size and len(data) <= AS_IT_IS:
                return Thumbnail(data, kind)
            picture.draft("RGB", (size, size))  # a JPEG is decoded at a fraction of its size
            small = picture.convert("RGBA" if "A" in picture.getbands() else "RGB")
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as exc:
        raise errors.NotFound("the stored bytes are no picture any more") from exc
    small.thumbnail((size, size), PIL.Image.Resampling.LANCZOS, reducing_gap=3.0)
    out = io.BytesIO()
    small.save(out, "WEBP", quality=QUALITY, method=2)
    return Thumbnail(out.getvalue(), "image/webp")


class Thumbnails:
    """Least recently asked for goes first, when `held` bytes are kept. Makes as many at once
    as there are processors, so that a screen full of large pictures leaves the API its
    threads' memory. Thread-safe."""

    def __init__(self, held: int = HELD_BYTES) -> None:
        self._held = held
        self._bytes = 0
        self._kept: OrderedDict[tuple[bytes, int], Thumbnail] = OrderedDict()
        self._lock = threading.Lock()
        self._makers = threading.BoundedSemaphore(os.cpu_count() or 1)

    def get(self, sha256: bytes, size: int, read: Callable[[], bytes]) -> Thumbnail:
        """Of the picture with this hash. `read` brings its bytes where they are needed; what
        it and `make` raise is raised."""
        key = (sha256, size)
        if found := self._find(key):
            return found
        with self._makers:
            made = self._find(key) or make(read(), size)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self._bytes += len(made.data)
            while self._bytes > self._held and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1].data)
        return made

    def _find(self, key: tuple[bytes, int]) -> Thumbnail | None:
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    @property
    def bytes(self) -> int:
        """How many are kept."""
        return self._bytes
