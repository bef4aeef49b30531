"""A contact sheet: pictures in a grid, each with its prompt below. Needs Pillow."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

TILE, GAP, MARGIN = 96, 14, 20  # pixels
CAPTION_LINES, LINE_HEIGHT, FONT_SIZE = 2, 13, 11
LOOKED_AT = 400  # characters of a caption: more never fit
NO_CHARACTER = "\U0010ffff"  # in no font
INK, PAPER = (40, 40, 40), (255, 255, 255)


def write(pictures: Sequence[tuple[bytes | Path, str]], path: Path, *, columns: int = 12) -> None:
    """Writes a PNG of `pictures`, (bytes or file, caption) each, in rows of `columns`."""
    from PIL import Image, ImageDraw, ImageFont

    columns = max(1, min(columns, len(pictures)))
    rows = -(-len(pictures) // columns)
    wide, high = TILE + GAP, TILE + CAPTION_LINES * LINE_HEIGHT + GAP
    sheet = Image.new("RGB", (2 * MARGIN + columns * wide, 2 * MARGIN + rows * high), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_SIZE)
    has = glyphs(font)
    for number, (picture, caption) in enumerate(pictures):
        left, top = MARGIN + number % columns * wide, MARGIN + number // columns * high
        source = io.BytesIO(picture) if isinstance(picture, bytes) else picture
        with Image.open(source) as opened:
            tile = opened.convert("RGB").resize((TILE, TILE), Image.Resampling.BICUBIC)
        sheet.paste(tile, (left, top))
        for line, text in enumerate(wrapped(drawable(caption, has), draw, font)):
            place = (left + TILE / 2, top + TILE + 3 + line * LINE_HEIGHT)
            draw.text(place, text, fill=INK, font=font, anchor="ma")
    part = path.with_name(f".{path.name}.part")
    sheet.save(part, format="PNG", optimize=True)
    part.replace(path)


def glyphs(font: FreeTypeFont | ImageFont) -> Callable[[str], bool]:
    """Whether the font has a character: one that it lacks looks like any other it lacks."""
    lacking = bytes(font.getmask(NO_CHARACTER))
    return lambda each: each.isspace() or bytes(font.getmask(each)) != lacking


def drawable(caption: str, has: Callable[[str], bool]) -> str:
    """The beginning of a caption in characters that a font has: ü becomes u, a dash a hyphen;
    what has no such form is left out."""

    def near(each: str) -> str:
        if has(each):
            return each
        if unicodedata.category(each) == "Pd":
            return "-"
        return "".join(filter(has, unicodedata.normalize("NFKD", each)))

    return "".join(map(near, caption[:LOOKED_AT]))


def wrapped(caption: str, draw: ImageDraw, font: FreeTypeFont | ImageFont) -> list[str]:
    """The caption in at most CAPTION_LINES lines of a tile's width, cut with an ellipsis."""
    lines, words = [""], caption.split()
    for number, word in enumerate(words):
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font=font) <= TILE + GAP - 4 or not lines[-1]:
            lines[-1] = longer
        elif len(lines) < CAPTION_LINES:
            lines.append(word)
        else:
            lines[-1] += " …" if number < len(words) else ""
            break
    return [_cut(line, draw, font) for line in lines]


def _cut(line: str, draw: ImageDraw, font: FreeTypeFont | ImageFont) -> str:
    if draw.textlength(line, font=font) <= TILE + GAP - 4:
        return line
    line = line.removesuffix(" …")
    while line and draw.textlength(f"{line}…", font=font) > TILE + GAP - 4:
        line = line[:-1]
    return f"{line}…"
