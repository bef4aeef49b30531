"""Batches: a file of requests that becomes a job, and a job told as a batch. Only looks and
accepts; the work is done by `desk`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson

from api.farm import Farm
from api.links import lasting
from api.openai.batch_shapes import Batch as Shown
from api.openai.batch_shapes import BatchProblem, BatchProblems, BatchRequest, RequestCounts
from api.openai.results import Results
from api.submissions import parameters
from api.submissions.readers import refuse_nul
from promptmill import addresses, errors, jobs, records
from promptmill.store import batches as stored
from promptmill.store import files as stored_files
from promptmill.store import jobs as stored_jobs
from promptmill.store.batches import Batch

OUTPUT_SECONDS: Final = 2_592_000.0  # that output and error files are kept
LONGEST: Final = 366 * 86_400.0  # seconds of a window
STATUS: Final = {
    jobs.JobState.RECEIVING: "validating",
    jobs.JobState.QUEUED: "in_progress",
    jobs.JobState.PAUSED: "in_progress",
    jobs.JobState.CANCELLING: "cancelling",
    jobs.JobState.CANCELLED: "cancelling",  # until its files are closed
    jobs.JobState.COMPLETED: "finalizing",
    jobs.JobState.EXPIRED: "finalizing",
    jobs.JobState.FAILED: "finalizing",
}


def create(
    farm: Farm,
    tenant: records.Tenant,
    asked: BatchRequest,
    *,
    base_url: str,
    key: str | None,
    resent: bool,
) -> Batch:
    """Accepts a batch; a request sent again gets the batch that it made. resent: the client
    says that this is one. Raises `errors.Error`."""
    seconds = window_of(asked.completion_window)
    addresses.check_webhook(
        parameters.webhook({"webhook": asked.webhook}),
        any_network=farm.settings.webhook_networks == "any",
    )
    refuse_nul(asked.metadata, line=None, param="metadata")
    file = stored_files.get(farm.db, tenant.id, asked.input_file_id, param="input_file_id")
    if file.purpose != "batch":
        raise errors.BadRequest(
            f"file {file.public_id} was uploaded for {file.purpose}, not for batch",
            param="input_file_id",
        )
    after = asked.output_expires_after
    batch, _ = stored.create(
        farm.db,
        stored.NewBatch(
            tenant_id=tenant.id,
            endpoint=asked.endpoint,
            input_file=file.public_id,
            completion_window=asked.completion_window,
            seconds=seconds,
            priority=asked.priority,
            packing=asked.packing,
            webhook=asked.webhook,
            metadata=asked.metadata,
            base_url=base_url,
            output_expires_in=OUTPUT_SECONDS if after is None else float(after.seconds),
            idempotency_key=key,
            request_hash=_hash(asked),
            repeat=stored.RESENT if resent else stored.REPEAT,
        ),
    )
    return batch


def _hash(asked: BatchRequest) -> str:
    told = orjson.dumps(asked.model_dump(), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(told).hexdigest()


def window_of(text: str) -> float:
    """Seconds of a completion window. Raises `errors.BadRequest`."""
    try:
        seconds = parameters.window(text)
    except errors.BadRequest:
        seconds = None
    if seconds is None or seconds > LONGEST:
        raise errors.BadRequest(
            "completion_window must be like 30m, 24h or 7d, a year at most",
            param="completion_window",
        )
    return seconds


def cancel(farm: Farm, batch: Batch) -> Batch:
    """Asks for the end of a batch; one that is over stays as it is."""
    job = stored.jobs_of(farm.db, [batch]).get(batch.job_id or 0)
    if batch.status is not None or (job is not None and job.state in jobs.FINAL):
        return batch
    batch = stored.cancel(farm.db, batch.id)
    if batch.job_id is not None:
        withdraw(farm, batch)
    return batch


def withdraw(farm: Farm, batch: Batch) -> None:
    """Cancels the job of a batch, unless it is over or gone."""
    job = stored.jobs_of(farm.db, [batch]).get(batch.job_id or 0)
    if job is not None:
        farm.withdraw(stored_jobs.cancel(farm.db, job.tenant_id, job.public_id))


def show_all(farm: Farm, batches: Sequence[Batch]) -> list[Shown]:
    """As the API shows them."""
    found = stored.jobs_of(farm.db, batches)
    return [_show(farm, batch, found.get(batch.job_id or 0)) for batch in batches]


def status_of(batch: Batch, job: records.Job | None) -> str:
    if batch.status is not None:
        return batch.status
    if job is None:
        waits = batch.cancelling_at is None and batch.job_id is None
        return "validating" if waits else "cancelling"
    over = job.counts.done + job.counts.failed == job.counts.total
    if job.state is jobs.JobState.QUEUED and over:
        return "finalizing"
    return STATUS[job.state]


def counts_of(batch: Batch, job: records.Job | None) -> RequestCounts:
    """In requests. While it runs, those that make several images are counted by the share of
    images that are done."""
    if batch.status is not None:
        return RequestCounts(total=batch.requests, completed=batch.completed, failed=batch.failed)
    if job is None:
        return RequestCounts(total=batch.requests, completed=0, failed=0)
    images, requests = job.counts.total, batch.requests
    return RequestCounts(
        total=requests,
        completed=job.counts.done * requests // images,
        failed=job.counts.failed * requests // images,
    )


def _show(farm: Farm, batch: Batch, job: records.Job | None) -> Shown:
    status, counts = status_of(batch, job), counts_of(batch, job)
    left = counts.total - counts.completed - counts.failed
    wrong = batch.job_id is not None and counts.failed > 0
    unrun = batch.job_id is not None and status in ("expired", "cancelled") and left > 0
    problems = [BatchProblem(**one) for one in batch.errors or ()]
    pace = None if job is None else farm.pace(job)
    eta = None if pace is None or status != "in_progress" else pace.eta_seconds
    times: dict[str, Any] = {
        f"{name}_at": _whole(batch.ended_at) if status == name else None
        for name in ("completed", "failed", "expired", "cancelled")
    }
    return Shown(
        id=batch.public_id,
        endpoint=batch.endpoint,
        model=batch.model,
        errors=BatchProblems(data=problems) if problems else None,
        input_file_id=batch.input_file,
        completion_window=batch.completion_window,
        status=status,  # type: ignore[arg-type]
        output_file_id=(batch.output_file or None) if counts.completed else None,
        error_file_id=(batch.error_file or None) if wrong or unrun else None,
        created_at=int(batch.created_at),
        in_progress_at=_whole(batch.in_progress_at),
        expires_at=int(batch.expires_at),
        finalizing_at=_whole(batch.finalizing_at),
        cancelling_at=_whole(batch.cancelling_at),
        request_counts=counts,
        metadata=None if batch.metadata is None else dict(batch.metadata),
        job_id=None if job is None else job.public_id,
        priority=batch.priority,
        eta=None if eta is None else int(farm.db.now() + eta),
        eta_seconds=None if eta is None else round(eta, 1),
        images_per_second=0.0 if pace is None else round(pace.images_per_second, 3),
        **times,
    )


def _whole(at: float | None) -> int | None:
    return None if at is None else int(at)


def content(farm: Farm, file: stored_files.File, base_url: str) -> Iterator[bytes]:
    """The output or error file of a batch so far. Raises `errors.NotFound` when there is no
    job to tell of."""
    batch = stored.by_id(farm.db, file.batch_id or 0)
    job = None if batch is None else stored.jobs_of(farm.db, [batch]).get(batch.job_id or 0)
    if batch is None or job is None:
        raise errors.NotFound(f"file {file.public_id} has no content yet", param="file_id")
    url = lasting(farm, base_url, job, seconds=batch.output_expires_in)
    found = Results(farm, batch, job, url)
    return found.output() if file.public_id == batch.output_file else found.errors()
