"""A job as a dataset."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from api.schemas.base import Shape
from promptmill import exports


class NewExport(BaseModel):
    """What an export should be."""

    model_config = ConfigDict(extra="forbid")

    format: exports.Format
    shard_images: int = Field(
        default=exports.SHARD_IMAGES,
        ge=1,
        le=exports.SHARD_IMAGES,
        description="images in a shard, at most; fewer when they are large",
    )
    reuse: StrictBool = Field(
        default=True,
        description="answer with the job's export of this format and size, if it has one",
    )


class Export(Shape):
    """A job as a dataset. Sealed shards can be read while the others are made."""

    id: str
    object: Literal["export"] = "export"
    job_id: str
    format: str
    state: Literal["building", "completed", "failed"] = Field(
        description="building: more will come · completed: all of it is there, until the job is "
        "retried · failed: see error"
    )
    shard_images: int
    planned: int = Field(description="images 0 to planned - 1 stand in shards")
    total: int = Field(description="images of the job")
    shards: int = Field(description="planned so far")
    sealed: int = Field(description="of them, those that can be read")
    images: int = Field(description="in sealed shards")
    failed: int = Field(description="rows without an image, in sealed shards")
    bytes: int = Field(description="of all files that can be read")
    error: str | None
    created_at: float
    finished_at: float | None
    archive_url: str = Field(description="all that can be read, as one tar")


class ExportDeleted(Shape):
    """The answer to the deletion of an export. Its files are removed in the background."""

    id: str
    object: Literal["export"] = "export"
    deleted: Literal[True] = True


class ExportFile(Shape):
    """A file of a sealed shard."""

    name: str
    bytes: int
    sha256: str
    url: str


class ExportShard(Shape):
    """A sealed shard: it never changes."""

    id: str = Field(description="the `after` of the next page")
    object: Literal["export_shard"] = "export_shard"
    kind: Literal["main", "addendum", "card"]
    first: int
    end: int
    images: int
    failed: int
    sealed_at: float | None
    files: list[ExportFile] = Field(description="the last one marks the shard as whole")
