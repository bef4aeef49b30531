"""`POST /v1/images/generations`, as the official OpenAI client calls it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response

from api import errors as api_errors
from api.deps import FarmDep, TenantDep
from api.openai import images
from api.openai.shapes import ImageRequest, ImagesResponse

router = APIRouter(prefix="/v1/images", tags=["openai"])

NO_RETRY = {"x-should-retry": "false"}  # the client would send the request again


@router.post(
    "/generations",
    response_model=ImagesResponse,
    response_model_exclude_none=True,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def generations(
    asked: ImageRequest,
    request: Request,
    farm: FarmDep,
    tenant: TenantDep,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Any:
    """Renders `n` images of one prompt at interactive priority and answers with them."""
    if asked.stream:
        asked = asked.model_copy(update={"response_format": "b64_json"})
    try:
        made = await images.make(request, farm, tenant, asked, key=idempotency_key)
    except (images.NotRendered, images.NotInTime) as failure:
        return api_errors.response(failure, NO_RETRY)
    if asked.stream:
        told = b"".join(images.events(made))
        return Response(told, media_type="text/event-stream", headers={"cache-control": "no-store"})
    return made
