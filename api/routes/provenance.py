"""From the hash of a picture back to the job and row that made it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from api import present, schemas
from api.deps import FarmDep, Limit, TenantDep
from api.farm import Farm
from api.links import links
from promptmill import jobs, records
from promptmill.store import images as stored_images
from promptmill.store import jobs as stored_jobs

router = APIRouter(prefix="/v1/provenance", tags=["provenance"])


@router.get("", response_model=schemas.Page[schemas.Image])
def provenance(
    *,
    request: Request,
    farm: FarmDep,
    tenant: TenantDep,
    sha256: Annotated[str, Query(pattern="^[0-9a-fA-F]{64}$", description="of its bytes, hex")],
    after: Annotated[str | None, Query(description="an image id")] = None,
    limit: Limit = 20,
) -> Any:
    """The tenant's images whose bytes have this SHA-256, oldest job first: equal requests
    make equal bytes, so there may be several. An empty list when there is none."""
    found = stored_images.by_sha256(
        farm.db,
        tenant.id,
        bytes.fromhex(sha256),
        after=None if after is None else _place(farm, tenant, after),
        limit=limit + 1,
    )
    shapes = []
    for public_id, index in found[:limit]:
        job = stored_jobs.get(farm.db, tenant.id, public_id)
        image = stored_images.get(farm.db, job, index, cache=farm.segments)
        shapes.append(present.image_of(job, image, links(farm, request, job)))
    return present.page_of(shapes, has_more=len(found) > limit)


def _place(farm: Farm, tenant: records.Tenant, image_id: str) -> tuple[int, int]:
    """(job, index) that a cursor names. Raises `errors.NotFound`."""
    public_id, index = jobs.parse_image_id(image_id)
    return stored_jobs.get(farm.db, tenant.id, public_id).id, index
