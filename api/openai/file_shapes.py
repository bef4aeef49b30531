"""The shapes of the OpenAI files and uploads endpoints, as `shapes` has those of images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schemas import Shape


class FileObject(Shape):
    """A file of the tenant. The output of a batch that runs is `uploaded` and still grows."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["uploaded", "processed"]
    expires_at: int | None = None
    status_details: str | None = None


class FileDeleted(Shape):
    """The answer to the deletion of a file."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class ExpiresAfter(BaseModel):
    """How long files are kept."""

    model_config = ConfigDict(extra="forbid")

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)]


class UploadRequest(BaseModel):
    """A file that is to come in parts."""

    model_config = ConfigDict(extra="forbid")

    bytes: Annotated[int, Field(ge=1, description="of the whole file")]
    filename: Annotated[str, Field(min_length=1, max_length=1024)]
    mime_type: Annotated[str, Field(max_length=255, description="taken and not looked at")]
    purpose: Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
    expires_after: ExpiresAfter | None = None


class CompletionRequest(BaseModel):
    """Which parts make the file, in order."""

    model_config = ConfigDict(extra="forbid")

    part_ids: Annotated[
        list[Annotated[str, Field(max_length=100)]], Field(min_length=1, max_length=10_000)
    ]
    md5: Annotated[str, Field(max_length=64, description="of the whole file")] | None = None


class UploadPart(Shape):
    """A part that is in the store."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


class Upload(Shape):
    """A file that comes in parts."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: FileObject | None = Field(description="what it became")
