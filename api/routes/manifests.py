"""The signed manifest of a job, and the public key to check it with."""

from __future__ import annotations

import itertools
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from api import manifests, schemas
from api.deps import FarmDep, TenantDep
from promptmill import manifest
from promptmill.store import jobs as stored_jobs

router = APIRouter(tags=["provenance"])

MEDIA_TYPE = "application/x-ndjson"


@router.get(
    "/v1/jobs/{job_id}/manifest",
    response_class=StreamingResponse,
    responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}},
)
def of_job(
    job_id: str,
    farm: FarmDep,
    tenant: TenantDep,
    prompts: Annotated[bool, Query(description="the text of prompts as well")] = False,
) -> StreamingResponse:
    """JSON lines: a header, one line per done image with its sha256, seed and the hash of its
    prompt, and a footer that signs them. A finished job's is always the same bytes."""
    job = stored_jobs.get(farm.db, tenant.id, job_id)
    pieces = manifests.write(farm, job, prompts=prompts)
    first = next(pieces)  # what fails now is an error of its own, not half a manifest
    name = f'attachment; filename="{job.public_id}-manifest.jsonl"'
    return StreamingResponse(
        itertools.chain((first,), pieces),
        media_type=MEDIA_TYPE,
        headers={"content-disposition": name},
    )


@router.get("/v1/provenance/key", response_model=schemas.PublicKey)
def key(farm: FarmDep) -> Any:
    """The public key of this farm's manifests. Open to everyone."""
    signer = manifests.signer(farm)
    public = signer.public
    return schemas.PublicKey(
        id=manifest.key_id(public), public_key=manifest.encoded(public), pem=signer.pem
    )
