"""Finished pictures in bulk: one request instead of one per image."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from api import archives, schemas
from api.deps import FarmDep, Limit, TenantDep
from api.farm import Farm
from promptmill import jobs, records
from promptmill.store import images as stored_images
from promptmill.store import jobs as stored_jobs

router = APIRouter(prefix="/v1/jobs/{job_id}/archive", tags=["images"])

MEDIA_TYPE = "application/x-tar"
_HEADERS = {
    "x-images": "how many done images the archive is of",
    "x-last-index": "the `after` of the next archive; absent when there is no image",
    "x-has-more": "true or false: done images behind the last",
}
_ANSWER = {
    "description": "An uncompressed tar of members NNNNNNNNN.png (or .webp, .jpg), named by "
    "index. An image whose bytes are gone from the store is left out.",
    "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    "headers": {
        name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()
    },
}


@router.get("", response_class=StreamingResponse, responses={200: _ANSWER})
def archive(
    *,
    job_id: str,
    farm: FarmDep,
    tenant: TenantDep,
    after: Annotated[
        int | None, Query(ge=0, le=2**62, description="an index; default: from the first image")
    ] = None,
    limit: Limit = 1000,
    whole: Annotated[bool, Query(description="all that are done, not a page of them")] = False,
) -> StreamingResponse:
    """The bytes of a page of done images, in index order, as one tar; or of all of them, made
    while it is sent."""
    job = stored_jobs.get(farm.db, tenant.id, job_id)
    found, more = _page(farm, job, after, limit)
    headers = {}
    images: Iterable[records.Image] = found
    if whole:
        headers["content-disposition"] = f'attachment; filename="{job.public_id}.tar"'
        images = _all(farm, job, found, more)
    else:
        headers |= {"x-images": str(len(found)), "x-has-more": str(more).lower()}
        if found:
            headers["x-last-index"] = str(found[-1].item.index)
    pieces = archives.stream(farm.blobs, images, job.output.extension())
    first = next(pieces)  # a store that is down is an error of its own, not half an archive
    return StreamingResponse(
        itertools.chain((first,), pieces), media_type=MEDIA_TYPE, headers=headers
    )


def _page(
    farm: Farm, job: records.Job, after: int | None, limit: int
) -> tuple[list[records.Image], bool]:
    done = [jobs.ImageState.DONE]
    return stored_images.page(
        farm.db, job, after=after, limit=limit, states=done, cache=farm.segments
    )


def _all(
    farm: Farm, job: records.Job, found: list[records.Image], more: bool
) -> Iterator[records.Image]:
    """The images of a page and of all after it."""
    yield from found
    while more and found:
        found, more = _page(farm, job, found[-1].item.index, schemas.MAX_PAGE)
        yield from found
