"""`/v1/uploads`: files in parts, as the official OpenAI client calls it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from api import errors as api_errors
from api import openapi
from api.bodies import Chunks, Uploads
from api.deps import FarmDep, TenantDep
from api.openai import uploads
from api.openai.file_shapes import CompletionRequest, Upload, UploadPart, UploadRequest
from promptmill.store import uploads as stored

router = APIRouter(prefix="/v1/uploads", tags=["openai"])


@router.post("", response_model=Upload)
def create(given: UploadRequest, farm: FarmDep, tenant: TenantDep) -> Any:
    """Announces a file that comes in parts, within an hour."""
    return uploads.show(farm, uploads.create(farm, tenant, given))


@router.post(
    "/{upload_id}/parts",
    response_model=UploadPart,
    openapi_extra=openapi.form({"data": openapi.UPLOADED}, required=["data"]),
    responses=openapi.failures(api_errors.Timeout),
)
async def add_part(upload_id: str, request: Request, farm: FarmDep, tenant: TenantDep) -> Any:
    """Stores a part: the form's `data`, at most 64 MiB. Parts may come side by side."""
    chunks = Chunks(request, limit=uploads.MOST_FORM)
    places: Uploads = request.app.state.uploads
    kind = request.headers.get("content-type", "")
    return await places.run(
        tenant.id, lambda: uploads.receive(farm, tenant, upload_id, chunks, kind)
    )


@router.post("/{upload_id}/complete", response_model=Upload)
async def complete(
    upload_id: str, given: CompletionRequest, request: Request, farm: FarmDep, tenant: TenantDep
) -> Any:
    """Makes one file of the parts, in the order of `part_ids`."""
    places: Uploads = request.app.state.uploads

    def work() -> Upload:
        done = uploads.complete(farm, tenant, upload_id, given.part_ids, given.md5)
        return uploads.show(farm, done)

    return await places.run(tenant.id, work)


@router.post("/{upload_id}/cancel", response_model=Upload)
def cancel(upload_id: str, farm: FarmDep, tenant: TenantDep) -> Any:
    """Gives the upload up; its parts are deleted."""
    upload = stored.get(farm.db, tenant.id, upload_id)
    return uploads.show(farm, stored.cancel(farm.db, upload))
