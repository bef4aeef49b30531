"""Where an image's bytes can be had: a link that the store signs, else the content route."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request

from api.farm import Farm
from promptmill import records

LINK_SECONDS = 3600.0
CONTENT_TYPES = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}


def filename(job: records.Job, image: records.Image) -> str:
    return f"{job.public_id}-{image.item.index:09d}.{job.output.extension()}"


def signed(farm: Farm, job: records.Job, image: records.Image) -> str | None:
    """The store's own link, or None where it has none or the image lies inside a part."""
    if image.key is None or image.length is not None:
        return None
    return farm.blobs.url(image.key, expires=LINK_SECONDS, filename=filename(job, image))


def links(farm: Farm, request: Request, job: records.Job) -> Callable[[records.Image], str | None]:
    """The `url` of a job's done images, as seen from where this request came from."""
    base = f"{request.base_url}v1/jobs/{job.public_id}/images"

    def url(image: records.Image) -> str | None:
        return signed(farm, job, image) or f"{base}/{image.item.index}/content"

    return url
