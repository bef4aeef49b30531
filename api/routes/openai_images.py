"""`POST /v1/images/generations` and `/v1/images/edits`, as the official OpenAI client calls
them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Header, Request, Response

from api import errors as api_errors
from api import openapi
from api.bodies import Uploads
from api.deps import FarmDep, TenantDep
from api.farm import Farm
from api.openai import edits, images
from api.openai.shapes import EditRequest, ImageRequest, ImagesResponse
from promptmill import records

router = APIRouter(prefix="/v1/images", tags=["openai"])

NO_RETRY = {"x-should-retry": "false"}  # the client would send the request again


@router.post(
    "/generations",
    response_model=ImagesResponse,
    response_model_exclude_none=True,
    responses={
        200: {"content": {"text/event-stream": {}}},
        **openapi.failures(images.NotInTime),
    },
)
async def generations(
    asked: ImageRequest,
    request: Request,
    farm: FarmDep,
    tenant: TenantDep,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Any:
    """Renders `n` images of one prompt at interactive priority and answers with them."""
    return await _answer(request, farm, tenant, asked, key=idempotency_key)


_FORM = openapi.form(
    {
        **EditRequest.model_json_schema()["properties"],
        "image": openapi.UPLOADED,
        "mask": openapi.UPLOADED,
    },
    required=["image", "prompt"],
)


@router.post(
    "/edits",
    response_model=ImagesResponse,
    response_model_exclude_none=True,
    openapi_extra=_FORM,
    responses={
        200: {"content": {"text/event-stream": {}}},
        **openapi.failures(images.NotInTime),
    },
)
async def edit(request: Request, farm: FarmDep, tenant: TenantDep) -> Any:
    """Renders images that start from a picture, for models that can."""
    async with edits.form_of(request) as form:
        uploads: Uploads = request.app.state.whole
        asked, start = await uploads.run(tenant.id, lambda: edits.prepare(farm, tenant, form))
    try:
        return await _answer(request, farm, tenant, asked, key=None, start=start)
    finally:
        await anyio.to_thread.run_sync(edits.forget, farm, tenant, start)


async def _answer(
    request: Request,
    farm: Farm,
    tenant: records.Tenant,
    asked: ImageRequest,
    *,
    key: str | None,
    start: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    if asked.stream:
        asked = asked.model_copy(update={"response_format": "b64_json"})
    try:
        made = await images.make(request, farm, tenant, asked, key=key, start=start)
    except (images.NotRendered, images.NotInTime) as failure:
        return api_errors.response(failure, NO_RETRY)
    if asked.stream:
        kind = "image_edit" if start else "image_generation"
        told = b"".join(images.events(made, kind=kind))
        return Response(told, media_type="text/event-stream", headers={"cache-control": "no-store"})
    return made
