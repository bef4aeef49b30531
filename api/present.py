"""How the records of the farm become the shapes of the public contract. Knows no request
and no connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from api import schemas
from api.outlook import Outlook
from promptmill import jobs, models, records
from promptmill.store import outbox

T = TypeVar("T", bound=BaseModel)

_CLOSED = (jobs.JobState.CANCELLING, jobs.JobState.CANCELLED, jobs.JobState.EXPIRED)


def state_of(job: records.Job, *, rendering: bool = False) -> str:
    """The state that is shown: a queued job that began is running."""
    begun = rendering or job.started_at is not None or job.counts.done + job.counts.failed > 0
    return "running" if job.state is jobs.JobState.QUEUED and begun else str(job.state)


def counts_of(job: records.Job) -> schemas.Counts:
    done, failed, total = job.counts.done, job.counts.failed, job.counts.total
    left = total - done - failed
    closed = job.state in _CLOSED
    return schemas.Counts(
        total=total,
        queued=0 if closed else left,
        done=done,
        failed=failed,
        cancelled=left if closed else 0,
    )


def job_of(job: records.Job, outlook: Outlook) -> schemas.Job:
    return schemas.Job.model_construct(**_job_fields(job, outlook))


def retried_of(job: records.Job, outlook: Outlook, *, retried: int) -> schemas.Retried:
    return schemas.Retried.model_construct(**_job_fields(job, outlook), retried=retried)


def submitted_of(
    job: records.Job, outlook: Outlook, *, warnings: dict[str, Any]
) -> schemas.Submitted:
    return schemas.Submitted.model_construct(**_job_fields(job, outlook), warnings=warnings)


def _notice(job: records.Job, outlook: Outlook) -> str | None:
    told = []
    if outlook.cold and job.state is jobs.JobState.QUEUED:
        told.append(f"no worker serves the model {job.model} now")
    if outlook.lost is not None:
        images, seconds = outlook.lost
        what = "1 image waits" if images == 1 else f"{images:,} images wait"
        told.append(f"{what} for the lease of a silent worker, {seconds:.0f} s left at most")
    if outlook.fingerprints > 1:
        told.append(
            f"workers with {outlook.fingerprints} different fingerprints serve {job.model}: equal "
            "requests may get unequal bytes"
        )
    return "; ".join(told) or None


def _rendering(outlook: Outlook) -> schemas.Rendering | None:
    held = outlook.rendering
    if held is None:
        return None
    return schemas.Rendering(step=held["step"], steps=held["steps"], measuring=held["measuring"])


def _job_fields(job: records.Job, outlook: Outlook) -> dict[str, Any]:
    pace = outlook.pace
    return {
        "id": job.public_id,
        "object": "job",
        "name": job.name,
        "model": job.model,
        "state": state_of(job, rendering=outlook.rendering is not None),
        "priority": str(job.priority),
        "counts": counts_of(job),
        "images_per_second": round(pace.images_per_second, 3),
        "eta_seconds": None if pace.eta_seconds is None else round(pace.eta_seconds, 1),
        "cold": outlook.cold,
        "notice": _notice(job, outlook),
        "rendering": _rendering(outlook),
        "bytes": job.counts.bytes,
        "seed": job.seed,
        "generation": job.generation,
        "fingerprint": job.fingerprint,
        "defaults": dict(job.defaults),
        "output": schemas.Output(
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
) -> schemas.Image:
    item = image.item
    done = image.state is jobs.ImageState.DONE
    terminal = done or image.state is jobs.ImageState.FAILED
    error = None
    if image.error_code is not None:
        error = schemas.ImageError(code=image.error_code, message=image.error_text or "")
    return schemas.Image.model_construct(
        id=jobs.image_id(job.public_id, item.index),
        object="image",
        job_id=job.public_id,
        index=item.index,
        row=item.row,
        sample=item.sample,
        custom_id=item.custom_id,
        state=str(image.state),
        prompt=item.prompt,
        expanded_prompt=image.expanded_prompt or item.prompt,
        negative_prompt=item.negative_prompt,
        seed=item.seed if image.seed is None else image.seed,
        model=job.model,
        fingerprint=image.fingerprint,
        width=item.width,
        height=item.height,
        steps=item.steps,
        guidance=item.guidance,
        task=item.task,
        source=item.source,
        mask=item.mask,
        strength=item.strength if item.source else None,
        lora=item.lora or None,
        bytes=image.bytes if done else None,
        sha256=image.sha256.hex() if image.sha256 else None,
        score=image.score,
        below_min_score=image.below_min_score,
        rerolls=[schemas.Reroll(seed=seed, score=score) for seed, score in image.rerolls],
        url=url(image) if done else None,
        attempts=image.attempt + 1 if terminal else image.attempt,
        error=error,
        metadata=dict(item.metadata),
        render_ms=image.render_ms,
        worker=image.worker,
        finished_at=image.finished_at,
    )


def model_of(model: models.Model, workers: Sequence[Mapping[str, Any]] | None) -> schemas.Model:
    """`workers`: what those that serve it tell, None when that is not known."""
    caps = model.caps
    bounds = ("least", "default", "most")
    return schemas.Model(
        id=model.name,
        created=int(model.registered_at),
        description=model.description,
        fingerprint=model.fingerprint,
        fingerprints=sorted({str(worker["fingerprint"]) for worker in workers or ()}),
        cold=None if workers is None else not workers,
        workers=len(workers or ()),
        sizes=[f"{width}x{height}" for width, height in caps.sizes],
        tasks=list(caps.tasks),
        parameters=list(caps.parameters),
        steps=dict(zip(bounds, map(float, caps.steps), strict=True)),
        guidance=dict(zip(bounds, caps.guidance, strict=True)),
        quantizations=list(caps.quantizations),
        max_batch=caps.max_batch,
        max_prompt=caps.max_prompt,
        scores=caps.scores,
        loras=list(caps.loras),
        expander=caps.expander or None,
    )


def worker_of(model: str, status: Mapping[str, Any]) -> schemas.Worker:
    """Without the jobs that it renders for: they may be another tenant's."""
    name = str(status.get("worker") or status.get("id") or status.get("name") or "")
    told = {**status, "id": name, "model": model}
    if now := status.get("rendering"):
        told["rendering"] = {key: value for key, value in now.items() if key != "jobs"}
    return schemas.Worker.model_validate(told)


def event_of(job: records.Job, event: outbox.Logged) -> schemas.WebhookEvent:
    delivered = event.sent_at is not None
    undelivered = "given_up" if event.due_at is None else "pending"
    return schemas.WebhookEvent.model_construct(
        id=f"evt_{event.id}",
        object="webhook_event",
        job_id=job.public_id,
        type=event.event,
        url=event.url,
        state="delivered" if delivered else undelivered,
        created_at=event.created_at,
        delivered_at=event.sent_at,
        due_at=event.due_at,
        attempts=[
            schemas.Attempt(
                at=tried.at, seconds=tried.seconds, status=tried.status, error=tried.error
            )
            for tried in event.attempts
        ],
    )


def page_of(data: Iterable[T], *, has_more: bool) -> schemas.Page[T]:
    rows = list(data)
    ids = [str(getattr(row, "id", "")) for row in rows]
    return schemas.Page[T].model_construct(
        object="list",
        data=rows,
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
        has_more=has_more,
    )
