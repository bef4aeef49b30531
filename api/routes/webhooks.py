"""The delivery log of a job's webhooks, and asking for a delivery again."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Query

from api import present, schemas
from api.deps import FarmDep, Limit, TenantDep
from promptmill import errors
from promptmill.store import jobs as stored_jobs
from promptmill.store import outbox

router = APIRouter(prefix="/v1/jobs/{job_id}/webhooks", tags=["webhooks"])

_EVENT = re.compile(r"evt_([0-9]{1,18})", re.ASCII)


def _number(event: str | None, param: str) -> int | None:
    if event is None:
        return None
    match = _EVENT.fullmatch(event)
    if match is None:
        raise errors.BadRequest(f"{event[:40]!r} is no id of an event: evt_…", param=param)
    return int(match[1])


@router.get("", response_model=schemas.Page[schemas.WebhookEvent])
def listing(
    job_id: str,
    farm: FarmDep,
    tenant: TenantDep,
    after: Annotated[str | None, Query(description="the id of an event")] = None,
    limit: Limit = 20,
) -> Any:
    """The job's events, newest first, each with every attempt to deliver it."""
    job = stored_jobs.get(farm.db, tenant.id, job_id)
    found, more = outbox.log(farm.db, job.id, after=_number(after, "after"), limit=limit)
    return present.page_of((present.event_of(job, event) for event in found), has_more=more)


@router.post("/redeliver", response_model=schemas.Redelivery)
def redeliver(
    job_id: str,
    farm: FarmDep,
    tenant: TenantDep,
    event: Annotated[
        str | None, Query(description="default: all events that were given up")
    ] = None,
) -> Any:
    """Sends an event again, whether it was delivered or not, with a day of tries before it.
    It keeps its id, so that a receiver can tell."""
    job = stored_jobs.get(farm.db, tenant.id, job_id)
    number = _number(event, "event")
    count = outbox.redeliver(farm.db, job.id, number)
    if number is not None and not count:
        raise errors.NotFound(f"job {job_id} has no event {event}")
    return schemas.Redelivery(job_id=job_id, events=count)
