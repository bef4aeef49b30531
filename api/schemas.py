"""The shapes of the public contract, and how a record becomes one. Times are Unix
seconds; sizes are bytes or pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from api.rates import Pace
from promptmill import jobs, models, records

T = TypeVar("T", bound=BaseModel)

MAX_PAGE = 1000
_CLOSED = (jobs.JobState.CANCELLING, jobs.JobState.CANCELLED, jobs.JobState.EXPIRED)


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
    expanded_prompt: str = Field(description="as rendered, wildcards and variables resolved")
    negative_prompt: str
    seed: int
    model: str
    fingerprint: str | None
    width: int
    height: int
    steps: int
    guidance: float
    task: str
    bytes: int | None
    sha256: str | None = Field(description="hex, of the bytes behind `url`")
    score: float | None
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

    codes: list[str] | None = None


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


class Health(Shape):
    """Whether the process lives, or whether all it needs can be reached."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str] = Field(default={}, description="by name: ok, or what is wrong")


def state_of(job: records.Job) -> str:
    """The state that is shown: a queued job that began is running."""
    begun = job.started_at is not None or job.counts.done + job.counts.failed > 0
    return "running" if job.state is jobs.JobState.QUEUED and begun else str(job.state)


def counts_of(job: records.Job) -> Counts:
    done, failed, total = job.counts.done, job.counts.failed, job.counts.total
    left = total - done - failed
    closed = job.state in _CLOSED
    return Counts(
        total=total,
        queued=0 if closed else left,
        done=done,
        failed=failed,
        cancelled=left if closed else 0,
    )


def job_of(job: records.Job, *, pace: Pace, cold: bool | None) -> Job:
    return Job.model_construct(**_job_fields(job, pace=pace, cold=cold))


def retried_of(job: records.Job, *, pace: Pace, cold: bool | None, retried: int) -> Retried:
    return Retried.model_construct(**_job_fields(job, pace=pace, cold=cold), retried=retried)


def submitted_of(
    job: records.Job, *, pace: Pace, cold: bool | None, warnings: dict[str, Any]
) -> Submitted:
    return Submitted.model_construct(**_job_fields(job, pace=pace, cold=cold), warnings=warnings)


def _job_fields(job: records.Job, *, pace: Pace, cold: bool | None) -> dict[str, Any]:
    waits = job.state in (jobs.JobState.QUEUED, jobs.JobState.CANCELLING)
    notice = f"no worker serves the model {job.model} now" if cold and waits else None
    return {
        "id": job.public_id,
        "object": "job",
        "name": job.name,
        "model": job.model,
        "state": state_of(job),
        "priority": str(job.priority),
        "counts": counts_of(job),
        "images_per_second": round(pace.images_per_second, 3),
        "eta_seconds": None if pace.eta_seconds is None else round(pace.eta_seconds, 1),
        "cold": cold,
        "notice": notice,
        "bytes": job.counts.bytes,
        "seed": job.seed,
        "generation": job.generation,
        "fingerprint": job.fingerprint,
        "defaults": dict(job.defaults),
        "output": Output(
            format=job.output.format, packing=job.output.packing, prefix=job.output.prefix
        ),
        "recipe": None if job.recipe is None else dict(job.recipe),
        "webhook": job.webhook,
        "error": job.error,
        "metadata": dict(job.metadata),
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "expires_at": job.expires_at,
    }


def image_of(
    job: records.Job, image: records.Image, url: Callable[[records.Image], str | None]
) -> Image:
    item = image.item
    done = image.state is jobs.ImageState.DONE
    terminal = done or image.state is jobs.ImageState.FAILED
    error = None
    if image.error_code is not None:
        error = ImageError(code=image.error_code, message=image.error_text or "")
    return Image.model_construct(
        id=jobs.image_id(job.public_id, item.index),
        object="image",
        job_id=job.public_id,
        index=item.index,
        row=item.row,
        sample=item.sample,
        custom_id=item.custom_id,
        state=str(image.state),
        prompt=item.prompt,
        expanded_prompt=item.prompt,
        negative_prompt=item.negative_prompt,
        seed=item.seed,
        model=job.model,
        fingerprint=image.fingerprint,
        width=item.width,
        height=item.height,
        steps=item.steps,
        guidance=item.guidance,
        task=item.task,
        bytes=image.bytes if done else None,
        sha256=image.sha256.hex() if image.sha256 else None,
        score=image.score,
        url=url(image) if done else None,
        attempts=image.attempt + 1 if terminal else image.attempt,
        error=error,
        metadata=dict(item.metadata),
        render_ms=image.render_ms,
        worker=image.worker,
        finished_at=image.finished_at,
    )


def model_of(model: models.Model, workers: int | None) -> Model:
    """`workers`: how many serve it, None when that is not known."""
    caps = model.caps
    bounds = ("least", "default", "most")
    return Model(
        id=model.name,
        description=model.description,
        fingerprint=model.fingerprint,
        cold=None if workers is None else workers == 0,
        workers=workers or 0,
        sizes=[f"{width}x{height}" for width, height in caps.sizes],
        tasks=list(caps.tasks),
        parameters=list(caps.parameters),
        steps=dict(zip(bounds, map(float, caps.steps), strict=True)),
        guidance=dict(zip(bounds, caps.guidance, strict=True)),
        quantizations=list(caps.quantizations),
        max_batch=caps.max_batch,
        max_prompt=caps.max_prompt,
    )


def worker_of(model: str, status: Mapping[str, Any]) -> Worker:
    name = str(status.get("worker") or status.get("id") or status.get("name") or "")
    return Worker.model_validate({**status, "id": name, "model": model})


def page_of(data: Iterable[T], *, has_more: bool) -> Page[T]:
    rows = list(data)
    ids = [str(getattr(row, "id", "")) for row in rows]
    return Page[T].model_construct(
        object="list",
        data=rows,
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
        has_more=has_more,
    )
