"""The shapes of the OpenAI batches endpoint and of what only a line of a batch holds, as `shapes`
has those of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.openai.file_shapes import ExpiresAfter
from api.openai.shapes import EditRequest
from api.schemas import Shape

EDITS: Final = "/v1/images/edits"
Endpoint = Literal["/v1/images/generations", "/v1/images/edits"]  # what a batch can be of


class Reference(BaseModel):
    """A picture that the tenant has here."""

    model_config = ConfigDict(extra="forbid")

    file_id: Annotated[
        str, Field(max_length=200, description="an uploaded file; ours: or an image, img_…")
    ]


class BatchEdit(EditRequest):
    """The same as a line of a batch, which names its pictures instead of sending them."""

    images: Annotated[list[Reference], Field(min_length=1, max_length=1)]
    mask: Reference | None = None

    def start(self, transparent: Callable[[str], bool]) -> dict[str, Any]:
        """What its row starts from. transparent: whether the picture behind a reference is
        clear in places."""
        source = self.images[0].file_id
        painted = self.mask is not None or transparent(source)
        found = {
            "source": source,
            "mask": None if self.mask is None else self.mask.file_id,
            "task": self.task or ("inpaint" if painted else "img2img"),
            "strength": self.strength,
        }
        return {name: value for name, value in found.items() if value is not None}


class BatchRequest(BaseModel):
    """A file of requests to run within a window."""

    model_config = ConfigDict(extra="forbid")

    input_file_id: Annotated[str, Field(max_length=100, pattern=r"^[^\x00]*$")]
    endpoint: Endpoint
    completion_window: Annotated[
        str, Field(max_length=20, description="24h, 7d, 30m: what is not done by then is not run")
    ]
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
            Field(max_length=16),
        ]
        | None
    ) = None
    output_expires_after: ExpiresAfter | None = None
    # ours, through `extra_body`
    priority: Literal["interactive", "normal", "bulk"] = "bulk"
    packing: Literal["image", "tar"] = "image"
    webhook: Annotated[str, Field(max_length=2048)] | None = None


class BatchProblem(Shape):
    """What is wrong with a line of the file."""

    code: str
    message: str
    param: str | None
    line: int | None = Field(description="from 1; null: of the file as a whole")


class BatchProblems(Shape):
    object: Literal["list"] = "list"
    data: list[BatchProblem]


class RequestCounts(Shape):
    """In requests."""

    total: int
    completed: int
    failed: int


class Batch(Shape):
    """A file of requests on its way."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: BatchProblems | None
    input_file_id: str
    completion_window: str
    status: Literal[
        "validating",
        "failed",
        "in_progress",
        "finalizing",
        "completed",
        "expired",
        "cancelling",
        "cancelled",
    ]
    output_file_id: str | None = Field(description="readable, and growing, from the first result")
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None
    job_id: str | None = Field(description="ours: the job that it became")
    priority: str = Field(description="ours")
    eta: int | None = Field(description="ours: Unix seconds; null while nothing moves")
    eta_seconds: float | None = Field(description="ours")
    images_per_second: float = Field(description="ours: over the last ten seconds")
