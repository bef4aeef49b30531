"""The shapes of the public contract. Times are Unix seconds; sizes are bytes or pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from promptmill import exports

T = TypeVar("T", bound=BaseModel)

MAX_PAGE = 1000


class Shape(BaseModel):
    """What every answer shares: built by us, so nothing is coerced."""

    model_config = ConfigDict(frozen=True)


class Counts(Shape):
    """Where a job's images are; the parts add up to `total`."""

    total: int
    queued: int = Field(description="not finished yet, those being rendered included")
    done: int
    failed: int
    cancelled: int = Field(description="never rendered, because the job was cancelled or expired")


class Output(Shape):
    """How the images are encoded and stored."""

    format: str = Field(description="png, webp or jpeg")
    packing: str = Field(description="image: one object each; tar: packed into parts")
    prefix: str = Field(description="below the farm's storage prefix; empty for the default")


class Job(Shape):
    """One submission."""

    id: str
    object: Literal["job"] = "job"
    name: str
    model: str
    state: str = Field(
        description="queued, running, paused, cancelling; at the end completed, cancelled, "
        "failed (the submission was bad, nothing ran) or expired"
    )
    priority: str = Field(description="interactive, normal or bulk")
    counts: Counts
    images_per_second: float = Field(description="over the last ten seconds; overall at the end")
    eta_seconds: float | None = Field(description="null while nothing moves and at the end")
    cold: bool | None = Field(description="no live worker serves the model; null: not known")
    notice: str | None = Field(description="what a person should know about this job now")
    bytes: int = Field(description="of the images done so far")
    seed: int = Field(description="images whose row gives no seed derive theirs from this one")
    generation: int = Field(description="how often the job was retried")
    fingerprint: str | None = Field(description="the fingerprint that the job is pinned to")
    defaults: dict[str, Any]
    output: Output
    recipe: dict[str, Any] | None = Field(description="template and variables, as given")
    webhook: str | None
    error: str | None
    metadata: dict[str, Any]
    created_at: float
    started_at: float | None
    finished_at: float | None
    expires_at: float | None


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


class Model(Shape):
    """A registered model and what it can do."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="when a worker last registered it")
    owned_by: Literal["promptmill"] = "promptmill"
    description: str
    fingerprint: str
    cold: bool | None = Field(description="no live worker serves it; null: not known")
    workers: int
    sizes: list[str]
    tasks: list[str]
    parameters: list[str] = Field(description="row fields beyond prompt and seed it honours")
    steps: dict[str, float]
    guidance: dict[str, float]
    quantizations: list[str]
    max_batch: int
    max_prompt: int = Field(description="characters")
    scores: bool = Field(description="it scores its pictures")
    expander: str | None = Field(description="what its workers write prompts out with")


class Worker(Shape):
    """A live worker, as it last reported itself."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: str
    object: Literal["worker"] = "worker"
    model: str


class Page(Shape, Generic[T]):
    """A page of a list; the next one starts `after` its `last_id`."""

    object: Literal["list"] = "list"
    data: Sequence[T]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Retried(Job):
    """A job after a retry."""

    retried: int = Field(description="how many failed images were queued again")


class Submitted(Job):
    """A job just accepted, with what `on_unsupported=warn` let pass."""

    warnings: dict[str, Any] = Field(description='{"total", "data": [{line, field, message}]}')


class Plan(Shape):
    """What a submission would do: the answer to a dry run."""

    model_config = ConfigDict(frozen=True, extra="allow")

    object: Literal["plan"] = "plan"
    valid: bool = Field(description="a submission of this would be accepted")
    model: str
    seed: int
    rows: int
    images: int
    duplicates: int = Field(description="images equal to an earlier one")
    duplicates_exact: bool
    buckets: list[dict[str, Any]]
    bytes: int
    generator_seconds: float
    eta_seconds: float | None = Field(description="null without a worker")
    first: list[dict[str, Any]]
    problems: dict[str, Any] = Field(description="what a submission would be refused for")
    warnings: dict[str, Any]
    complete: bool = Field(description="the body was read to its end")


class Deleted(Shape):
    """The answer to a deletion. A live job is cancelled first: `deleted` is then false and
    the job goes away when its last lease has ended."""

    id: str
    object: Literal["job"] = "job"
    deleted: bool
    state: str


class Failures(Shape):
    """How many images of a job failed, by error code."""

    object: Literal["failures"] = "failures"
    job_id: str
    codes: dict[str, int]


class RetryRequest(BaseModel):
    """Which failed images to queue again; without codes, all."""

    model_config = ConfigDict(extra="forbid")

    codes: list[Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")]] | None = None


class VerifyRequest(BaseModel):
    """Which images to render again and compare: `sample` of them at random, or all."""

    model_config = ConfigDict(extra="forbid")

    sample: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    all: bool = False
    repair: bool = Field(default=False, description="kept with the verification, for the client")
    seed: int | None = Field(default=None, description="chooses the sample; default: random")


VerdictStatus = Literal["ok", "damaged", "missing", "mismatch", "unverifiable", "pending"]


class Verdict(Shape):
    """One image against its second rendering."""

    id: str
    object: Literal["verdict"] = "verdict"
    index: int
    row: int
    status: VerdictStatus = Field(
        description="ok: stored bytes, record and second rendering agree · damaged: the stored "
        "bytes are not those recorded · missing: the object is gone · mismatch: the second "
        "rendering differs · unverifiable: another fingerprint, or it was not rendered · "
        "pending: not rendered again yet"
    )
    repairable: bool | None = Field(description="the good bytes are at hand; null: not known yet")
    sha256: str | None = Field(description="as recorded")
    stored_sha256: str | None = Field(description="of the bytes that are stored now")
    rendered_sha256: str | None = Field(description="of the second rendering")
    fingerprint: str | None
    rendered_fingerprint: str | None


class Verdicts(Page[Verdict]):
    """A page of verdicts. `summary` counts this page's, by status."""

    job_id: str
    verify_job: str
    state: str = Field(description="of the job that renders again")
    next: int | None = Field(description="the `after` of the next page")
    summary: dict[str, int]


class Repaired(Shape):
    """What a repair did."""

    object: Literal["repair"] = "repair"
    job_id: str
    repaired: list[int] = Field(description="indexes whose good bytes are back")
    unrepairable: list[int] = Field(description="indexes that are damaged or missing still")


class Attempt(Shape):
    """One attempt to deliver a webhook."""

    at: float
    seconds: float
    status: int | None = Field(description="of the receiver's answer; null: there was none")
    error: str | None = Field(description="null: it was delivered")


class WebhookEvent(Shape):
    """An event of a job, and what became of it."""

    id: str = Field(description="the `webhook-id` of every attempt")
    object: Literal["webhook_event"] = "webhook_event"
    job_id: str
    type: str
    url: str
    state: Literal["delivered", "pending", "given_up"]
    created_at: float
    delivered_at: float | None
    due_at: float | None = Field(description="of the next attempt")
    attempts: list[Attempt] = Field(description="the last fifty, oldest first")


class Redelivery(Shape):
    """How many events will be sent again."""

    object: Literal["redelivery"] = "redelivery"
    job_id: str
    events: int


class PublicKey(Shape):
    """What the manifests of this farm are checked with."""

    id: str
    object: Literal["public_key"] = "public_key"
    algorithm: Literal["Ed25519"] = "Ed25519"
    public_key: str = Field(description="base64 of its 32 bytes")
    pem: str


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
    reuse: bool = Field(
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


class Health(Shape):
    """Whether the process lives, or whether all it needs can be reached."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str] = Field(default={}, description="by name: ok, or what is wrong")


class Fault(Shape):
    """What went wrong."""

    message: str
    type: str
    param: str | None = Field(description="the parameter or field at fault")
    code: str | None = Field(description="stable, for machines")
    line: int | None = Field(default=None, description="of the body, from 1")


class Failure(Shape):
    """Every error of the API."""

    error: Fault
