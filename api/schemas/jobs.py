"""Jobs: what is asked of them and what is told of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.base import Shape


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


class Rendering(Shape):
    """How far a worker is with images of a job."""

    step: int
    steps: int
    measuring: bool = Field(description="it looks for the best batch shape first")


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
    cold: bool | None = Field(
        description="no live worker leases of the model, or all drain; null: not known"
    )
    notice: str | None = Field(description="what a person should know about this job now")
    rendering: Rendering | None = Field(
        description="where the model goes by steps: the micro-batch that is furthest"
    )
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
