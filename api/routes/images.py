"""The images of a job: pages in row order, one image, its bytes."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from api import contents, present, schemas, thumbnails
from api.deps import FarmDep, Limit, TenantDep
from api.farm import Farm
from api.links import CONTENT_TYPES, ReaderDep, filename, links, signed
from promptmill import errors, jobs, records
from promptmill.store import images as stored_images
from promptmill.store import jobs as stored_jobs

router = APIRouter(prefix="/v1/jobs/{job_id}/images", tags=["images"])

_PICTURE: dict[str, Any] = {"content": {kind: {} for kind in CONTENT_TYPES.values()}}
MOST_DIGITS = 18  # of an index

Index = Annotated[int, Path(ge=0, le=2**62)]


def _after(job_id: str, after: str | None) -> int | None:
    """The index that a cursor names: an image id of this job, or a plain index."""
    if after is None:
        return None
    if after.isascii() and after.isdigit() and len(after) <= MOST_DIGITS:
        return int(after)
    try:
        job, index = jobs.parse_image_id(after)
    except errors.NotFound:
        job, index = "", -1
    if job != job_id:
        raise errors.BadRequest("after is not the id of an image of this job", param="after")
    return index


@router.get("", response_model=schemas.Page[schemas.Image])
def listing(
    *,
    job_id: str,
    request: Request,
    farm: FarmDep,
    tenant: TenantDep,
    after: Annotated[str | None, Query(description="an image id, or an index")] = None,
    limit: Limit = 100,
    state: Annotated[list[jobs.ImageState] | None, Query()] = None,
    code: Annotated[str | None, Query(description="of the error of failed images")] = None,
) -> Any:
    """A page of images in row order."""
    job = stored_jobs.get(farm.db, tenant.id, job_id)
    found, more = stored_images.page(
        farm.db,
        job,
        after=_after(job_id, after),
        limit=limit,
        states=state,
        code=code,
        cache=farm.segments,
    )
    url = links(farm, request, job)
    return present.page_of((present.image_of(job, i, url) for i in found), has_more=more)


@router.get("/{index}", response_model=schemas.Image)
def show(job_id: str, index: Index, request: Request, farm: FarmDep, tenant: TenantDep) -> Any:
    """One image."""
    job = stored_jobs.get(farm.db, tenant.id, job_id)
    image = stored_images.get(farm.db, job, index, cache=farm.segments)
    return present.image_of(job, image, links(farm, request, job))


@router.get(
    "/{index}/content",
    response_class=Response,
    responses={
        200: _PICTURE,
        206: {**_PICTURE, "description": "the range that was asked for"},
        304: {"description": "the caller has these bytes"},
        307: {"description": "with `redirect`: to the store's signed link"},
        416: {"model": schemas.Failure, "description": contents.RangeNotSatisfiable.__doc__},
    },
)
@router.head("/{index}/content", include_in_schema=False)
def content(
    *,
    job_id: str,
    index: Index,
    request: Request,
    farm: FarmDep,
    reader: ReaderDep,
    redirect: Annotated[bool, Query(description="to the store's signed link, if any")] = False,
) -> Response:
    """The bytes of a done image, or a range of them. An image's `url` may carry a signature
    that opens this without a key, for about an hour."""
    job = stored_jobs.get(farm.db, reader, job_id)
    image, key, sha256 = _done(farm, job, index)
    if redirect and (link := signed(farm, job, image)):
        return RedirectResponse(link, 307)
    return contents.answer(
        farm.blobs,
        contents.Content(
            key=key,
            offset=image.offset or 0,
            bytes=image.bytes,
            sha256=sha256.hex(),
            media_type=CONTENT_TYPES[job.output.format],
            filename=filename(job, image),
        ),
        request,
    )


@router.get(
    "/{index}/thumbnail",
    response_class=Response,
    responses={200: _PICTURE, 304: {"description": "the caller has these bytes"}},
)
def thumbnail(
    *,
    job_id: str,
    index: Index,
    request: Request,
    farm: FarmDep,
    reader: ReaderDep,
    size: Annotated[thumbnails.Size, Query()] = thumbnails.Size.MEDIUM,
) -> Response:
    """A small copy of a done image, never enlarged: WebP, or the picture itself where that is
    small already. It never changes, and opens without a key as the content does."""
    job = stored_jobs.get(farm.db, reader, job_id)
    image, key, sha256 = _done(farm, job, index)
    tag = f'"{sha256.hex()}-{size:d}"'
    headers = {
        "etag": tag,
        "cache-control": "private, max-age=31536000, immutable",
        "x-content-type-options": "nosniff",
    }
    if contents.is_known(request, tag):
        return Response(status_code=304, headers=headers)
    made = farm.thumbnails.get(
        sha256,
        size,
        lambda: farm.blobs.read(key, offset=image.offset or 0, length=image.bytes),
    )
    return Response(made.data, headers=headers, media_type=made.media_type)


def _done(farm: Farm, job: records.Job, index: int) -> tuple[records.Image, str, bytes]:
    """A done image, the object that its bytes lie in, their sha256. Raises
    `errors.NotFound` for any other image."""
    image = stored_images.get(farm.db, job, index, cache=farm.segments)
    if image.state is not jobs.ImageState.DONE or image.key is None or image.sha256 is None:
        raise errors.NotFound(f"image {index} is {image.state}: it has no bytes")
    return image, image.key, image.sha256
