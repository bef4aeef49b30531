"""One image of a job as the SDK sees it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptmill import errors

if TYPE_CHECKING:
    from promptmill.client.job import Job

PNG = b"\x89PNG\r\n"


@dataclass(frozen=True, slots=True)
class Image:
    """One image of a job. prompt: as submitted; expanded_prompt: as rendered, the same where it
    was not expanded; `data`: all that the farm said of it; job: whose it is."""

    index: int
    state: str
    prompt: str
    url: str | None = None
    sha256: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    job: Job | None = field(default=None, repr=False, compare=False)
    expanded_prompt: str = ""

    def __post_init__(self) -> None:
        if not self.expanded_prompt:
            object.__setattr__(self, "expanded_prompt", self.prompt)

    @staticmethod
    def of(data: Mapping[str, Any], job: Job | None = None) -> Image:
        return Image(
            index=int(data["index"]),
            state=str(data["state"]),
            prompt=str(data.get("prompt") or ""),
            expanded_prompt=str(data.get("expanded_prompt") or ""),
            url=data.get("url"),
            sha256=data.get("sha256"),
            data=data,
            job=job,
        )

    @property
    def expanded(self) -> bool:
        """Whether another text than its prompt was rendered."""
        return self.expanded_prompt != self.prompt

    def content(self) -> bytes:
        """Its bytes. Raises `errors.NotFound` while it has none."""
        if self.job is None:
            raise errors.NotFound(f"image {self.index} belongs to no job")
        return self.job.content(self.index)

    def save(self, path: str | Path) -> Path:
        """Writes its bytes to `path`."""
        target = Path(path)
        target.write_bytes(self.content())
        return target

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows. None: the text instead."""
        if self.state != "done":
            return None
        try:
            return as_png(self.content())
        except errors.Error:
            return None


def as_png(data: bytes, *, side: int | None = None) -> bytes | None:
    """A picture as PNG, at most `side` pixels wide and high. None where it would have to be
    converted and Pillow is not installed, or cannot be."""
    if data.startswith(PNG) and side is None:
        return data
    try:
        from PIL import Image as Pillow

        with Pillow.open(io.BytesIO(data)) as picture:
            small = picture.convert("RGB")
            if side is not None:
                small.thumbnail((side, side))
            out = io.BytesIO()
            small.save(out, "PNG")
            return out.getvalue()
    except (ImportError, OSError, ValueError):
        return None
