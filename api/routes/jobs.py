"""Jobs: submit, list, look at, cancel, pause, resume, retry, delete."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import anyio.to_thread
import orjson
from fastapi import APIRouter, Header, Query, Request, Response

from api import intake, openapi, present, schemas, submissions
from api.bodies import Chunks, Uploads
from api.deps import FarmDep, Limit, TenantDep
from api.errors import Timeout
from api.farm import Farm
from api.submissions import described
from promptmill import jobs, records
from promptmill.store import deletion
from promptmill.store import jobs as stored_jobs

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


def shown(farm: Farm, job: records.Job) -> schemas.Job:
    return present.job_of(job, farm.outlook(job))


_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": described.document()},
            "application/x-ndjson": {"schema": {"type": "string"}},
            "text/csv": {"schema": {"type": "string"}},
            "text/plain": {"schema": {"type": "string"}},
            "application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}},
        },
    },
}


_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": schemas.Plan, "description": "to `dry_run`"},
    202: {"description": "durable and queued"},
    **openapi.failures(Timeout),
}


@router.post(
    "",
    status_code=202,
    response_model=schemas.Submitted,
    openapi_extra=_BODY,
    responses=_ANSWERS,
)
async def submit(
    request: Request,
    farm: FarmDep,
    tenant: TenantDep,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
    dry_run: Annotated[bool, Query(description="answer a plan and write nothing")] = False,
) -> Any:
    """Takes a submission: a JSON document, or a streamed body, which has the document's
    parameters in the query."""
    chunks = Chunks(request, limit=farm.settings.max_body_bytes)
    body = submissions.Body(
        chunks,
        content_type=request.headers.get("content-type", ""),
        content_encoding=request.headers.get("content-encoding", ""),
        query=request.query_params.multi_items(),
    )
    await chunks.ahead()
    state = request.app.state
    uploads: Uploads = state.whole if chunks.whole else state.uploads
    answer, headers = await uploads.run(
        tenant.id, lambda: _take(farm, tenant, body, idempotency_key)
    )
    if isinstance(answer, dict):
        return Response(orjson.dumps(answer), media_type="application/json")
    headers["location"] = f"/v1/jobs/{answer.id}"
    return Response(answer.model_dump_json(), 202, media_type="application/json", headers=headers)


def _take(
    farm: Farm, tenant: records.Tenant, body: submissions.Body, key: str | None
) -> tuple[schemas.Submitted | dict[str, Any], dict[str, str]]:
    received = intake.take(farm, tenant, body, key=key)
    if isinstance(received, dict):
        return received, {}
    job = received.job
    warnings = received.warnings.to_json()
    answer = present.submitted_of(job, farm.outlook(job), warnings=warnings)
    return answer, {"idempotent-replayed": "true"} if received.replay else {}


@router.get("", response_model=schemas.Page[schemas.Job])
def listing(
    farm: FarmDep,
    tenant: TenantDep,
    after: str | None = None,
    limit: Limit = 20,
    state: Annotated[
        list[jobs.JobState | Literal["running"]] | None,
        Query(description="queued and running select the same jobs"),
    ] = None,
) -> Any:
    """The tenant's jobs, newest first."""
    states = [jobs.JobState.QUEUED if s == "running" else s for s in state] if state else None
    found, more = stored_jobs.page(farm.db, tenant.id, after=after, limit=limit, states=states)
    return present.page_of((shown(farm, job) for job in found), has_more=more)


@router.get("/{job_id}", response_model=schemas.Job)
async def show(job_id: str, farm: FarmDep, tenant: TenantDep) -> Any:
    """One job: its counts, pace and state, as of a tenth of a second ago at most."""
    answer = farm.looks.recent(tenant.id, job_id)
    if answer is None:
        asked = time.monotonic()
        answer = await anyio.to_thread.run_sync(_look, farm, tenant, job_id)
        farm.looks.keep(tenant.id, job_id, answer, asked=asked)
    return Response(answer, media_type="application/json")


def _look(farm: Farm, tenant: records.Tenant, job_id: str) -> bytes:
    return shown(farm, stored_jobs.get(farm.db, tenant.id, job_id)).model_dump_json().encode()


@router.post("/{job_id}/cancel", response_model=schemas.Job)
def cancel(job_id: str, farm: FarmDep, tenant: TenantDep) -> Any:
    """Ends the job; what was done stays. Cancelling twice is once."""
    job = stored_jobs.cancel(farm.db, tenant.id, job_id)
    farm.withdraw(job)
    return shown(farm, job)


@router.post("/{job_id}/pause", response_model=schemas.Job)
def pause(job_id: str, farm: FarmDep, tenant: TenantDep) -> Any:
    """Stops rendering, within a second, until `resume`."""
    job = stored_jobs.pause(farm.db, tenant.id, job_id)
    farm.withdraw(job)
    return shown(farm, job)


@router.post("/{job_id}/resume", response_model=schemas.Job)
def resume(job_id: str, farm: FarmDep, tenant: TenantDep) -> Any:
    """Continues a paused job."""
    job = stored_jobs.resume(farm.db, tenant.id, job_id)
    farm.enqueue(job, fresh=False)
    return shown(farm, job)


@router.post("/{job_id}/retry", response_model=schemas.Retried)
def retry(
    job_id: str,
    farm: FarmDep,
    tenant: TenantDep,
    body: schemas.RetryRequest | None = None,
    code: Annotated[list[str] | None, Query(description="instead of a body")] = None,
) -> Any:
    """Queues the failed images again, under the same job with the same seeds."""
    codes = body.codes if body is not None and body.codes is not None else code
    job, retried = stored_jobs.retry(farm.db, tenant.id, job_id, codes=codes)
    if retried:
        farm.enqueue(job, fresh=False)
    return present.retried_of(job, farm.outlook(job), retried=retried)


@router.delete(
    "/{job_id}",
    response_model=schemas.Deleted,
    responses={202: {"model": schemas.Deleted, "description": "cancelled first"}},
)
def delete(job_id: str, farm: FarmDep, tenant: TenantDep, response: Response) -> Any:
    """Deletes a job with its rows and pictures; a live one is cancelled first (202)."""
    before = stored_jobs.get(farm.db, tenant.id, job_id)
    live = before.state in jobs.LIVE
    if live:
        farm.withdraw(stored_jobs.cancel(farm.db, tenant.id, job_id))
    job = deletion.delete(farm.db, tenant.id, job_id)
    farm.looks.forget(tenant.id, job_id)
    response.status_code = 202 if live else 200
    return schemas.Deleted(id=job_id, deleted=not live, state=present.state_of(job))
