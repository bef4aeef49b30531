"""The images of a job."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.schemas.base import Shape


class ImageError(Shape):
    """Why an image failed."""

    code: str
    message: str


class Reroll(Shape):
    """One attempt at an image."""

    seed: int
    score: float | None = Field(description="null: this seed could not be rendered")


class Image(Shape):
    """One image of a job: its row after defaults and, when finished, its result."""

    id: str
    object: Literal["image"] = "image"
    job_id: str
    index: int = Field(description="0 to total - 1: the image's key in its job")
    row: int = Field(description="the row it came from, from 0")
    sample: int = Field(description="which of the row's n images, from 0")
    custom_id: str | None = Field(description="the row's own `id`")
    state: str = Field(description="queued, rendering, done, failed or cancelled")
    prompt: str = Field(description="as submitted")
    expanded_prompt: str = Field(description="as rendered")
    negative_prompt: str
    seed: int
    model: str
    fingerprint: str | None
    width: int
    height: int
    steps: int
    guidance: float
    task: str
    source: str | None = Field(description="hex SHA-256 of the picture it started from")
    mask: str | None
    strength: float | None = Field(description="how far it may leave its source")
    lora: str | None = Field(description="the adapter that it asked for")
    bytes: int | None
    sha256: str | None = Field(description="hex, of the bytes behind `url`")
    score: float | None = Field(description="the model's own, higher is better")
    below_min_score: bool | None = Field(description="no attempt reached the row's min_score")
    rerolls: list[Reroll] = Field(description="each attempt, where the row has a min_score")
    url: str | None = Field(description="where the bytes are, once done")
    attempts: int
    error: ImageError | None
    metadata: dict[str, Any] = Field(description="the row's other fields")
    render_ms: float | None
    worker: str | None
    finished_at: float | None
