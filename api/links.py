"""Where an image's bytes can be had: a link that the store signs, else the content route,
where the farm demands keys with a signature of its own that opens one image for a while."""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from collections.abc import Callable
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials

from api.deps import FarmDep, bearer, caller_of
from api.farm import Farm
from promptmill import errors, records

LINK_SECONDS = 3600.0
STEP = 600.0  # links of the same ten minutes are equal, so that browsers keep what they have
CONTENT_TYPES = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}


def filename(job: records.Job, image: records.Image) -> str:
    return f"{job.public_id}-{image.item.index:09d}.{job.output.extension()}"


def signed(farm: Farm, job: records.Job, image: records.Image) -> str | None:
    """The store's own link, or None where it has none or the image lies inside a part."""
    if image.key is None or image.length is not None:
        return None
    return farm.blobs.url(image.key, expires=LINK_SECONDS, filename=filename(job, image))


def links(farm: Farm, request: Request, job: records.Job) -> Callable[[records.Image], str | None]:
    """The `url` of a job's done images, as seen from where this request came from. It opens
    without a key, for LINK_SECONDS at least."""
    base = f"{request.base_url}v1/jobs/{job.public_id}/images"

    def url(image: records.Image) -> str | None:
        index = image.item.index
        return signed(farm, job, image) or f"{base}/{index}/content{pass_of(farm, job, index)}"

    return url


def pass_of(farm: Farm, job: records.Job, index: int) -> str:
    """The query that opens the content of one image without a key; empty where the farm
    demands none."""
    if farm.settings.auth == "off":
        return ""
    expires = math.ceil((time.time() + LINK_SECONDS) / STEP) * int(STEP)
    signature = _sign(farm, job.public_id, index, expires)
    return "?" + urlencode({"expires": expires, "signature": signature})


def lasting(
    farm: Farm, base: str, job: records.Job, *, seconds: float
) -> Callable[[records.Image], str]:
    """Links below `base` that open without a key for `seconds`: they lead through the farm,
    since no store signs for that long."""
    expires = math.ceil((time.time() + seconds) / STEP) * int(STEP)

    def url(image: records.Image) -> str:
        index, told = image.item.index, "redirect=true"
        if farm.settings.auth != "off":
            signature = _sign(farm, job.public_id, index, expires)
            told += f"&expires={expires}&signature={signature}"
        return f"{base}v1/jobs/{job.public_id}/images/{index}/content?{told}"

    return url


def _sign(farm: Farm, job_id: str, index: int, expires: int) -> str:
    told = f"content:{job_id}:{index}:{expires}".encode()
    return hmac.new(farm.link_key(), told, hashlib.sha256).hexdigest()


def reader_of(
    *,
    job_id: str,
    index: int,
    request: Request,
    farm: FarmDep,
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    expires: Annotated[int | None, Query(description="of a signed link, Unix seconds")] = None,
    signature: Annotated[str | None, Query(description="of a signed link, hex")] = None,
) -> int | None:
    """Whose jobs the caller may look into, to read one image: a tenant's by its key; any
    (None) by a link that the farm signed for this image. Raises `errors.Unauthorized`,
    `errors.Forbidden`."""
    if signature is None or given is not None:
        return caller_of(request, farm, given).id
    genuine = _sign(farm, job_id, index, expires or 0)
    if not hmac.compare_digest(genuine.encode(), signature.encode()):
        raise errors.Forbidden("this link is not genuine")
    if (expires or 0) < time.time():
        raise errors.Forbidden("this link has expired: ask the API for the image's `url` again")
    return None


ReaderDep = Annotated[int | None, Depends(reader_of)]
