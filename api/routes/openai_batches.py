"""`/v1/batches`, as the official OpenAI client calls it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request

from api import present, schemas
from api.deps import FarmDep, TenantDep
from api.openai import batches
from api.openai.batch_shapes import Batch, BatchRequest
from api.openai.desk import Desk
from promptmill.store import batches as stored

router = APIRouter(prefix="/v1/batches", tags=["openai"])

MOST_BATCHES = 100  # in one page


def _poke(request: Request) -> None:
    desk: Desk = request.app.state.desk
    desk.poke()


@router.post("", response_model=Batch)
def create(
    asked: BatchRequest,
    request: Request,
    farm: FarmDep,
    tenant: TenantDep,
    *,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
    x_stainless_retry_count: Annotated[
        str | None, Header(max_length=20, description="how often the client sent it before")
    ] = None,
) -> Any:
    """Takes a file of requests; its lines are validated in the background. An equal request
    within a minute, or one under the same Idempotency-Key, answers the batch that it made."""
    batch = batches.create(
        farm,
        tenant,
        asked,
        base_url=str(request.base_url),
        key=idempotency_key,
        resent=x_stainless_retry_count not in (None, "0"),
    )
    _poke(request)
    return batches.show_all(farm, [batch])[0]


@router.get("", response_model=schemas.Page[Batch])
def listing(
    farm: FarmDep,
    tenant: TenantDep,
    after: Annotated[str | None, Query(description="the id of a batch")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_BATCHES)] = 20,
) -> Any:
    """The tenant's batches, newest first."""
    found, more = stored.page(farm.db, tenant.id, after=after, limit=limit)
    return present.page_of(batches.show_all(farm, found), has_more=more)


@router.get("/{batch_id}", response_model=Batch)
def show(batch_id: str, farm: FarmDep, tenant: TenantDep) -> Any:
    """One batch."""
    return batches.show_all(farm, [stored.get(farm.db, tenant.id, batch_id)])[0]


@router.post("/{batch_id}/cancel", response_model=Batch)
def cancel(batch_id: str, request: Request, farm: FarmDep, tenant: TenantDep) -> Any:
    """Ends a batch; what was done stays in its output file. Cancelling twice is once."""
    batch = batches.cancel(farm, stored.get(farm.db, tenant.id, batch_id))
    _poke(request)
    return batches.show_all(farm, [batch])[0]
