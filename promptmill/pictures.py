"""Source pictures: which files an image may start from. Refuses what is no PNG, JPEG or
WebP, what is damaged, and what would fill the memory when it is decoded."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image, ImageOps, UnidentifiedImageError

from promptmill import errors

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_BYTES = 32 << 20
MAX_PIXELS = 40_000_000  # 160 MB decoded with transparency
LARGE = 2_000_000  # pixels

# One thread for all, not a lock: what a thread has freed, its part of the heap keeps.
_ONE = ThreadPoolExecutor(1, "large-pictures")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file holds, upright. transparent: some of its pixels let the ground through."""

    format: str
    width: int
    height: int
    transparent: bool


def check(data: bytes) -> Facts:
    """Decodes the file once. Raises `errors.BadRow` with what is wrong with it."""
    image, format = decode(data)
    return Facts(format, image.width, image.height, is_transparent(image))


def decode(data: bytes) -> tuple[Image.Image, str]:
    """The first frame, upright, as RGB or RGBA, and png, jpeg or webp. The size is read
    from the header before a pixel is decoded; of large pictures one is decoded at a time, since
    each takes three times its pixels meanwhile. Raises `errors.BadRow`."""
    if len(data) > MAX_BYTES:
        raise errors.BadRow(f"the picture has {len(data):,} bytes; at most {MAX_BYTES:,}")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as file:
            if file.width * file.height > MAX_PIXELS:
                raise _too_large(f"{file.width}x{file.height}")
            large = file.width * file.height > LARGE
            image = _ONE.submit(_upright, file).result() if large else _upright(file)
            return image, str(file.format).lower()
    except UnidentifiedImageError:
        raise errors.BadRow("the file is no PNG, JPEG or WebP picture") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large("far larger") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise errors.BadRow(f"the picture is damaged: {error}") from error


def _upright(file: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(file)
    if image.mode.startswith("I"):  # 16 bits of grey, which `convert` cuts off at 255
        image.info.pop("transparency", None)
        image = image.point(lambda level: level * (1 / 256)).convert("L")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _too_large(size: str) -> errors.BadRow:
    return errors.BadRow(f"the picture is {size}; it may have {MAX_PIXELS:,} pixels")


def is_transparent(image: Image.Image) -> bool:
    """Whether any pixel lets the ground through."""
    if image.mode != "RGBA":
        return False
    least, _ = image.getchannel("A").getextrema()
    return isinstance(least, int | float) and least < 255
