"""From the hash of a picture back to the job and row that made it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from api import present, schemas
from api.deps import FarmDep, TenantDep
from api.links import links
from promptmill.store import images as stored_images
from promptmill.store import jobs as stored_jobs

router = APIRouter(prefix="/v1/provenance", tags=["provenance"])


@router.get("", response_model=schemas.Page[schemas.Image])
def provenance(
    request: Request,
    farm: FarmDep,
    tenant: TenantDep,
    sha256: Annotated[str, Query(pattern="^[0-9a-fA-F]{64}$", description="of its bytes, hex")],
) -> Any:
    """The tenant's images whose bytes have this SHA-256; an empty list when there is none."""
    shapes = []
    for public_id, index in stored_images.by_sha256(farm.db, tenant.id, bytes.fromhex(sha256)):
        job = stored_jobs.get(farm.db, tenant.id, public_id)
        image = stored_images.get(farm.db, job, index, cache=farm.segments)
        shapes.append(present.image_of(job, image, links(farm, request, job)))
    return present.page_of(shapes, has_more=False)
