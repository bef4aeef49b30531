"""Verification of a job: start one, read its verdicts, repair what is damaged."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Response

from api import present, schemas, verification
from api.deps import FarmDep, Limit, TenantDep
from api.routes.jobs import shown
from promptmill.store import jobs as stored_jobs

router = APIRouter(prefix="/v1/jobs/{job_id}/verify", tags=["verify"])


@router.post("", status_code=202, response_model=schemas.Job)
def verify(
    job_id: str,
    farm: FarmDep,
    tenant: TenantDep,
    response: Response,
    wanted: Annotated[schemas.VerifyRequest | None, Body()] = None,
) -> Any:
    """Renders images again, as an ordinary job whose `metadata.verifies` names this one;
    without `sample`, all that are done."""
    job = stored_jobs.get(farm.db, tenant.id, job_id)
    made = verification.create(farm, tenant, job, wanted or schemas.VerifyRequest())
    response.headers["location"] = f"/v1/jobs/{job_id}/verify/{made.public_id}"
    return shown(farm, made)


@router.get("/{verify_job}", response_model=schemas.Verdicts)
def verdicts(
    *,
    job_id: str,
    verify_job: str,
    farm: FarmDep,
    tenant: TenantDep,
    after: Annotated[int | None, Query(ge=0, description="`next` of the page before")] = None,
    limit: Limit = 100,
) -> Any:
    """Each image against its second rendering. Reads the stored bytes of the page."""
    job = stored_jobs.get(farm.db, tenant.id, job_id)
    check = stored_jobs.get(farm.db, tenant.id, verify_job)
    found, more = verification.pairs(farm, job, check, after=after, limit=limit)
    data = [pair.verdict(job) for pair in found]
    summary: dict[str, int] = {}
    for verdict in data:
        summary[verdict.status] = summary.get(verdict.status, 0) + 1
    return schemas.Verdicts(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=more,
        next=found[-1].again.item.index if found and more else None,
        job_id=job.public_id,
        verify_job=check.public_id,
        state=present.state_of(check),
        summary=summary,
    )


@router.post("/{verify_job}/repair", response_model=schemas.Repaired)
def repair(job_id: str, verify_job: str, farm: FarmDep, tenant: TenantDep) -> Any:
    """Restores damaged and missing images from their second rendering."""
    job = stored_jobs.get(farm.db, tenant.id, job_id)
    check = stored_jobs.get(farm.db, tenant.id, verify_job)
    return verification.repair(farm, job, check)
