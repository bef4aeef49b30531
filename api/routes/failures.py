"""The failed images of a job: how many by error code, and as rows to submit again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from api import rows, schemas
from api.deps import FarmDep, TenantDep
from api.farm import Farm
from promptmill import jobs, records
from promptmill.store import images as stored_images
from promptmill.store import jobs as stored_jobs

router = APIRouter(prefix="/v1/jobs/{job_id}/failures", tags=["jobs"])

MEDIA_TYPE = "application/x-ndjson"


@router.get("", response_model=schemas.Failures)
def failures(job_id: str, farm: FarmDep, tenant: TenantDep) -> Any:
    """How many images failed, by error code: what `retry` takes."""
    job = stored_jobs.get(farm.db, tenant.id, job_id)
    codes = stored_images.error_counts(farm.db, job.id)
    return schemas.Failures(job_id=job.public_id, codes=codes)


@router.get(
    "/rows",
    response_class=StreamingResponse,
    responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}},
)
def failed_rows(
    job_id: str,
    farm: FarmDep,
    tenant: TenantDep,
    code: Annotated[str | None, Query(description="only images that failed with it")] = None,
    reasons: Annotated[
        bool, Query(description="and what went wrong, as `_error`: to be left out when sent again")
    ] = False,
) -> StreamingResponse:
    """The rows of all failed images as JSON lines that `POST /v1/jobs` takes, each with the
    seed that it had."""
    job = stored_jobs.get(farm.db, tenant.id, job_id)
    headers = {"content-disposition": f'attachment; filename="{job.public_id}-failed.jsonl"'}
    pieces = _lines(farm, job, code, reasons=reasons)
    first = next(pieces)  # a database that is out of reach is an error, not half a file
    return StreamingResponse(
        itertools.chain((first,), pieces), media_type=MEDIA_TYPE, headers=headers
    )


def _lines(farm: Farm, job: records.Job, code: str | None, *, reasons: bool) -> Iterator[bytes]:
    """A page of lines at a time; one piece at the least."""
    pages = stored_images.walk(
        farm.db,
        job,
        limit=schemas.MAX_PAGE,
        states=[jobs.ImageState.FAILED],
        code=code,
        cache=farm.segments,
    )
    for page in pages:
        yield b"".join(_line(image, job.public_id, reasons=reasons) for image in page)


def _line(image: records.Image, job: str, *, reasons: bool) -> bytes:
    if not reasons:
        return rows.line_of(image, job)
    reason = {
        "code": image.error_code,
        "message": image.error_text,
        "job": job,
        "index": image.item.index,
        "row": image.item.row,
        "sample": image.item.sample,
    }
    return orjson.dumps(rows.row_of(image, job) | {"_error": reason}) + b"\n"
