"""A job as a notebook shows it: one line of facts and a grid of its first pictures, small and
inside the page, so that the notebook shows them without a farm too."""

from __future__ import annotations

import base64
import html
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from promptmill import errors
from promptmill.client.image import PNG, Image, as_png

if TYPE_CHECKING:
    from promptmill.client.job import Job

SHOWN = 24  # pictures of a grid
SIDE = 96  # pixels of a thumbnail
SMALL = 12_000  # bytes up to which a PNG is shown as it is
THREADS = 6

_GRID = "display:flex;flex-wrap:wrap;gap:6px;margin-top:6px"
_CELL = f"width:{SIDE}px;margin:0;font:11px sans-serif;color:#666"
_TEXT = "overflow:hidden;white-space:nowrap;text-overflow:ellipsis"


def grid(job: Job) -> str:
    """HTML of at most about SHOWN x 30 kB. A farm that does not answer leaves the line."""
    counts = job.counts
    facts = f"{counts.done:,} of {counts.total:,} images"
    facts += f", {counts.failed:,} failed" if counts.failed else ""
    title = " · ".join(
        html.escape(str(part))
        for part in (job.id, job.data.get("name"), job.data.get("model"), job.state, facts)
        if part
    )
    return f"<div><code>{title}</code>{_pictures(job)}</div>"


def _pictures(job: Job) -> str:
    try:
        found = list(itertools.islice(job.images(state="done", limit=SHOWN), SHOWN))
    except errors.Error:
        return ""
    with ThreadPoolExecutor(THREADS) as pool:
        cells = "".join(pool.map(_cell, found))
    more = job.counts.done - len(found)
    rest = f'<div style="{_CELL};width:auto">and {more:,} more</div>' if more > 0 else ""
    return f'<div style="{_GRID}">{cells}</div>{rest}' if cells else ""


def _cell(image: Image) -> str:
    text = html.escape(image.prompt[:300], quote=True)
    link = _thumbnail(image)
    size = f"width:{SIDE}px;height:{SIDE}px;object-fit:contain"
    shown = f'<img src="{link}" alt="{text}" style="{size}">' if link else f"#{image.index}"
    return (
        f'<figure style="{_CELL}" title="{text}">{shown}<div style="{_TEXT}">{text}</div></figure>'
    )


def _thumbnail(image: Image) -> str | None:
    try:
        data = image.content()
    except errors.Error:
        return None
    small = data if data.startswith(PNG) and len(data) <= SMALL else as_png(data, side=SIDE)
    if small is None:
        return None
    return f"data:image/png;base64,{base64.b64encode(small).decode()}"
