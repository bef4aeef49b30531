"""`/v1/files`, as the official OpenAI client calls it."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from api import errors as api_errors
from api import openapi, present, schemas
from api.bodies import Chunks, Uploads
from api.deps import FarmDep, TenantDep
from api.links import LINK_SECONDS
from api.openai import batches, files
from api.openai.file_shapes import FileDeleted, FileObject
from promptmill import errors, keys
from promptmill.store import files as stored

router = APIRouter(prefix="/v1/files", tags=["openai"])

MOST_FILES = 10_000  # in one page

_UPLOAD = openapi.form(
    {
        "file": openapi.UPLOADED,
        "purpose": {"enum": list(files.PURPOSES)},
        "expires_after[anchor]": {"enum": ["created_at"]},
        "expires_after[seconds]": {
            "type": "integer",
            "minimum": files.LEAST_SECONDS,
            "maximum": files.MOST_SECONDS,
        },
    },
    required=["file", "purpose"],
)


@router.post(
    "",
    response_model=FileObject,
    openapi_extra=_UPLOAD,
    responses=openapi.failures(api_errors.Timeout),
)
async def upload(request: Request, farm: FarmDep, tenant: TenantDep) -> Any:
    """Stores a file: the form's `file`, streamed to the store of objects."""
    chunks = Chunks(request, limit=farm.settings.max_body_bytes)
    places: Uploads = request.app.state.uploads
    kind = request.headers.get("content-type", "")
    file = await places.run(tenant.id, lambda: files.receive(farm, tenant, chunks, kind))
    return files.show(file)


@router.get("", response_model=schemas.Page[FileObject])
def listing(
    *,
    farm: FarmDep,
    tenant: TenantDep,
    after: Annotated[str | None, Query(description="the id of a file")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_FILES)] = MOST_FILES,
    order: Literal["asc", "desc"] = "desc",
    purpose: str | None = None,
) -> Any:
    """The tenant's files by age, the newest first."""
    found, more = stored.page(
        farm.db,
        tenant.id,
        after=after,
        limit=limit,
        ascending=order == "asc",
        purpose=purpose,
    )
    return present.page_of(map(files.show, found), has_more=more)


@router.get("/{file_id}", response_model=FileObject)
def show(file_id: str, farm: FarmDep, tenant: TenantDep) -> Any:
    """One file."""
    return files.show(stored.get(farm.db, tenant.id, file_id))


@router.delete("/{file_id}", response_model=FileDeleted)
def delete(file_id: str, farm: FarmDep, tenant: TenantDep) -> Any:
    """Deletes a file. What was made from it stays."""
    stored.drop(farm.db, stored.get(farm.db, tenant.id, file_id))
    return FileDeleted(id=file_id)


@router.get(
    "/{file_id}/content",
    response_class=Response,
    responses={
        200: {"content": {files.MEDIA_TYPE: {}}},
        302: {"description": "To a link that the store signed: an hour, no key needed."},
    },
)
def content(file_id: str, request: Request, farm: FarmDep, tenant: TenantDep) -> Response:
    """The bytes of a file."""
    file = stored.get(farm.db, tenant.id, file_id)
    disposition = f"attachment; filename*=UTF-8''{quote(file.filename)}"
    headers = {"content-disposition": disposition, "x-content-type-options": "nosniff"}
    if file.batch_id is not None:
        lines = batches.content(farm, file, str(request.base_url))
        first = next(lines, b"")  # what fails now is an error of its own, not half a file
        told = itertools.chain((first,), lines)
        return StreamingResponse(told, media_type=files.MEDIA_TYPE, headers=headers)
    key = keys.file(file.public_id)
    if link := farm.blobs.url(key, expires=LINK_SECONDS, filename=file.filename):
        return RedirectResponse(link, 302)
    try:
        pieces = farm.blobs.stream(key)
    except errors.NotFound as gone:
        raise errors.NotFound(f"the bytes of {file_id} are gone", param="file_id") from gone
    headers["content-length"] = str(file.bytes)
    return StreamingResponse(pieces, media_type=files.MEDIA_TYPE, headers=headers)
