"""Exports: a job as a dataset, shard by shard while it renders, and as a whole."""

from __future__ import annotations

import itertools
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from api import contents, datasets, present, schemas
from api.deps import FarmDep, Limit, TenantDep
from api.links import LINK_SECONDS
from promptmill import errors, exports
from promptmill.blobs import tar
from promptmill.store import exports as stored
from promptmill.store import jobs as stored_jobs

router = APIRouter(prefix="/v1", tags=["exports"])

_BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind: {} for kind in datasets.MEDIA_TYPES.values()}}
}


@router.post("/jobs/{job_id}/exports", status_code=202, response_model=schemas.Export)
def create(
    job_id: str, wanted: schemas.NewExport, request: Request, farm: FarmDep, tenant: TenantDep
) -> Any:
    """Has a job made a dataset. Its shards appear as its images end, also while it renders."""
    job = stored_jobs.get(farm.db, tenant.id, job_id)
    export = stored.create(
        farm.db, job, wanted.format, shard_images=wanted.shard_images, reuse=wanted.reuse
    )
    return datasets.shown(farm, export, job, str(request.base_url))


@router.get("/jobs/{job_id}/exports", response_model=schemas.Page[schemas.Export])
def of_job(
    *,
    job_id: str,
    request: Request,
    farm: FarmDep,
    tenant: TenantDep,
    after: str | None = None,
    limit: Limit = 100,
) -> Any:
    """The exports of a job, newest first."""
    job = stored_jobs.get(farm.db, tenant.id, job_id)
    found, more = stored.page(farm.db, tenant.id, job_id=job.id, after=after, limit=limit)
    base = str(request.base_url)
    return present.page_of((datasets.shown(farm, e, j, base) for e, j in found), has_more=more)


@router.get("/exports", response_model=schemas.Page[schemas.Export])
def listing(
    *,
    request: Request,
    farm: FarmDep,
    tenant: TenantDep,
    after: str | None = None,
    limit: Limit = 100,
) -> Any:
    """All exports, newest first."""
    found, more = stored.page(farm.db, tenant.id, job_id=None, after=after, limit=limit)
    base = str(request.base_url)
    return present.page_of((datasets.shown(farm, e, j, base) for e, j in found), has_more=more)


@router.get("/exports/{export_id}", response_model=schemas.Export)
def show(export_id: str, request: Request, farm: FarmDep, tenant: TenantDep) -> Any:
    """How far an export is."""
    export, job = stored.get(farm.db, tenant.id, export_id)
    return datasets.shown(farm, export, job, str(request.base_url))


@router.delete("/exports/{export_id}", response_model=schemas.ExportDeleted)
def delete(export_id: str, farm: FarmDep, tenant: TenantDep) -> Any:
    """Deletes an export with its files. The job and its images stay."""
    export = stored.remove(farm.db, tenant.id, export_id)
    return schemas.ExportDeleted(id=export.public_id)


@router.get("/exports/{export_id}/shards", response_model=schemas.Page[schemas.ExportShard])
def shards(
    *,
    export_id: str,
    request: Request,
    farm: FarmDep,
    tenant: TenantDep,
    after: Annotated[int | None, Query(ge=-1, le=2**31, description="a shard's id")] = None,
    limit: Limit = 100,
    cards: Annotated[bool, Query(description="README.md and what belongs to it instead")] = False,
) -> Any:
    """The shards that are sealed, and their files. A sealed shard never changes."""
    export, _ = stored.get(farm.db, tenant.id, export_id)
    found, more = stored.sealed(farm.db, export.id, after=after, limit=limit, cards=cards)
    base = f"{request.base_url}v1/exports/{export.public_id}/files/"

    def url(file: exports.File) -> str:
        return farm.blobs.url(file.key, expires=LINK_SECONDS, filename=_filename(export, file)) or (
            base + file.name
        )

    return present.page_of((datasets.shard_of(shard, url) for shard in found), has_more=more)


def _filename(export: exports.Export, file: exports.File) -> str:
    return f"{export.public_id}-{file.name.rpartition('/')[2]}"


@router.get("/exports/{export_id}/files/{name:path}", response_class=Response, responses=_BYTES)
@router.head("/exports/{export_id}/files/{name:path}", include_in_schema=False)
def file(
    *,
    export_id: str,
    name: str,
    request: Request,
    farm: FarmDep,
    tenant: TenantDep,
    redirect: Annotated[bool, Query(description="to the store's signed link, if any")] = False,
) -> Response:
    """One file of a sealed shard, or a range of it."""
    export, _ = stored.get(farm.db, tenant.id, export_id)
    found = stored.find_file(farm.db, export, name)
    if found is None:
        raise errors.NotFound(f"export {export_id} has no file {name!r} yet")
    filename = _filename(export, found)
    if redirect and (link := farm.blobs.url(found.key, expires=LINK_SECONDS, filename=filename)):
        return RedirectResponse(link, 307)
    content = contents.Content(
        key=found.key,
        offset=0,
        bytes=found.bytes,
        sha256=found.sha256,
        media_type=datasets.MEDIA_TYPES[found.name.rpartition(".")[2]],
        filename=filename,
    )
    return contents.answer(farm.blobs, content, request)


@router.get(
    "/exports/{export_id}/archive",
    response_class=StreamingResponse,
    responses={200: {"content": {tar.CONTENT_TYPE: {}}}},
)
def archive(export_id: str, farm: FarmDep, tenant: TenantDep) -> StreamingResponse:
    """Everything that is sealed, as one tar that unpacks to the dataset."""
    export, job = stored.get(farm.db, tenant.id, export_id)
    pieces = datasets.archive(farm, export)
    first = next(pieces)  # a store that is down is an error of its own, not half an archive
    name = f'attachment; filename="{job.public_id}-{export.format}.tar"'
    return StreamingResponse(
        itertools.chain((first,), pieces),
        media_type=tar.CONTENT_TYPE,
        headers={"content-disposition": name},
    )
