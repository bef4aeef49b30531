"""The shapes of the OpenAI image endpoints, as the official client (openai 3.x) sends and
reads them; what is ours beside theirs is marked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from api.schemas import Shape
from promptmill import jobs

MOST_IMAGES = 10

EDITS: Final = "/v1/images/edits"
Endpoint = Literal["/v1/images/generations", "/v1/images/edits"]  # what a batch can be of


class ImageRequest(BaseModel):
    """A request for `n` images of one prompt. Unknown fields are refused by name; fields that
    no generator here can honour are accepted only with the values that ask for nothing."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    prompt: Annotated[str, Field(max_length=32_000)]
    model: str | None = None
    n: Annotated[int, Field(ge=1, le=MOST_IMAGES)] | None = None
    size: Annotated[str, Field(max_length=20, description="WIDTHxHEIGHT, or auto")] | None = None
    response_format: Literal["url", "b64_json"] | None = None
    output_format: Literal["png", "webp", "jpeg"] | None = None
    stream: bool | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    safety_identifier: Annotated[str, Field(max_length=512)] | None = None
    # accepted where they ask for nothing
    quality: Literal["auto", "standard"] | None = None
    background: Literal["auto", "opaque"] | None = None
    moderation: Literal["auto", "low"] | None = None
    output_compression: Literal[100] | None = None
    partial_images: Annotated[int, Field(ge=0, le=3, description="none is ever sent")] | None = None
    # ours, through `extra_body`
    seed: Annotated[int, Field(ge=0, lt=1 << jobs.SEED_BITS)] | None = None
    negative_prompt: str | None = None
    steps: Annotated[
        int | None,
        Field(ge=1, le=100_000, validation_alias=AliasChoices("steps", "num_inference_steps")),
    ] = None
    guidance: Annotated[
        float | None, Field(validation_alias=AliasChoices("guidance", "guidance_scale"))
    ] = None
    lora: Annotated[str, Field(max_length=64, description="an adapter of the model")] | None = None
    metadata: dict[str, Any] | None = None

    def submission(self, **start: Any) -> dict[str, Any]:
        """The same as a document of `POST /v1/jobs`. start: what its row starts from."""
        row = {
            "prompt": self.prompt,
            "n": self.n,
            "size": None if self.size == "auto" else self.size,
            "seed": self.seed,
            "negative_prompt": self.negative_prompt,
            "steps": self.steps,
            "guidance": self.guidance,
            "lora": self.lora,
            **start,
        }
        caller = self.safety_identifier or self.user
        document = {
            "model": self.model,
            "name": self.prompt[:80],
            "priority": "interactive",
            "metadata": {**(self.metadata or {}), **({"user": caller} if caller else {})},
            "output": {"format": self.output_format or "png"},
            "items": [{name: value for name, value in row.items() if value is not None}],
        }
        return {name: value for name, value in document.items() if value is not None}


class EditRequest(ImageRequest):
    """The same for a picture to start from. With a mask, or a picture that is transparent in
    places, what is clear is painted anew (`inpaint`); else the whole (`img2img`)."""

    input_fidelity: Literal["low"] | None = None
    # ours, through `extra_body`
    task: Annotated[str, Field(max_length=64)] | None = None
    strength: float | None = None


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


class ImageData(Shape):
    """One image: its bytes in base64 or where they are."""

    b64_json: str | None = None
    url: str | None = None
    revised_prompt: str | None = None
    seed: int = Field(description="ours: the seed that was used")
    id: str = Field(description="ours: the image, as GET /v1/jobs/{id}/images shows it")
    sha256: str | None = Field(description="ours: of the bytes")


class ImagesResponse(Shape):
    """The answer to an image request."""

    created: int
    data: list[ImageData]
    output_format: str
    size: str
    quality: str = "auto"
    background: str = "opaque"
    job_id: str = Field(description="ours: the job that made them")


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


class BatchRequest(BaseModel):
    """A file of requests to run within a window."""

    model_config = ConfigDict(extra="forbid")

    input_file_id: Annotated[str, Field(max_length=100)]
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
