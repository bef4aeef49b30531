"""One image request from start to end: submit a job, wait for its pictures, answer with
them. A client that goes away, or waits too long, cancels what it asked for."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import anyio.to_thread
import orjson
from fastapi import Request

from api import intake, submissions
from api.bodies import Uploads
from api.farm import Farm
from api.feed import Feeds
from api.links import links
from api.openai.shapes import ImageData, ImageRequest, ImagesResponse
from promptmill import errors, jobs, records
from promptmill.store import images as stored_images
from promptmill.store import jobs as stored_jobs

log = logging.getLogger("promptmill.api")

LONGEST = 300.0  # seconds that a client is kept waiting; its own limit is 600 by default
COLD = 30.0  # seconds to wait for a model that nobody serves: a worker may be starting
LISTEN = 1.0  # seconds between two looks whether the client is still there

# What the client's type of an event promises; nothing is charged by tokens here.
NO_TOKENS = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}

Url = Callable[[records.Image], str | None]
Seen = Mapping[int, records.Image]  # by index


class NotInTime(errors.Unavailable):
    """The images were not ready in time."""

    status = 504
    code = "timeout"
    retry = False


class Gone(errors.BadRequest):
    """The client went away before its images were done."""

    status = 499  # nobody reads it: for the log and the metrics
    code = "client_gone"


class Refused(errors.BadRequest):
    """The request was refused by a filter of this farm."""

    type = "image_generation_user_error"
    code = "moderation_blocked"

    def body(self) -> dict[str, dict[str, object]]:
        told = super().body()
        details = {"moderation_stage": "input", "categories": []}
        return {"error": {**told["error"], "moderation_details": details}}


class NotRendered(errors.Error):
    """The model could not render this prompt; sending it again changes nothing."""

    code = "render_failed"


async def make(
    request: Request,
    farm: Farm,
    tenant: records.Tenant,
    asked: ImageRequest,
    *,
    key: str | None,
    start: Mapping[str, Any] = MappingProxyType({}),
) -> ImagesResponse:
    """Submits and waits. start: what the images start from. Raises `errors.Error`: of the
    submission, `Refused`, `NotRendered`, `NotInTime`, `Gone`."""
    body = submissions.Body([_document(asked, start)])
    uploads: Uploads = request.app.state.whole
    received = await uploads.run(tenant.id, lambda: _take(farm, tenant, body, key))
    job, seen = await wait(request, farm, received.job)
    if job.counts.done + job.counts.failed < job.counts.total:
        raise errors.Conflict(f"job {job.public_id} was {job.state} before its images were done")
    url = links(farm, request, job)
    return await anyio.to_thread.run_sync(answer, farm, job, asked, url, seen)


def _document(asked: ImageRequest, start: Mapping[str, Any]) -> bytes:
    try:
        json.dumps(asked.metadata, allow_nan=False)  # orjson would keep them as null
        return orjson.dumps(asked.submission(**start))
    except (orjson.JSONEncodeError, ValueError, RecursionError) as error:  # or a number too large
        raise errors.BadRequest(
            f"metadata cannot be kept as JSON: {error}", param="metadata"
        ) from error


def _take(
    farm: Farm, tenant: records.Tenant, body: submissions.Body, key: str | None
) -> submissions.Received:
    received = intake.take(farm, tenant, body, key=key)
    if isinstance(received, dict):
        raise errors.BadRequest("an image request has no dry run", param="dry_run")
    return received


async def wait(request: Request, farm: Farm, job: records.Job) -> tuple[records.Job, Seen]:
    """The job once all its images are terminal or it has ended otherwise, and those of its
    images that were seen to finish. Cancels it and raises `NotInTime` when that takes too
    long, `Gone` when the client went away."""
    seen: dict[int, records.Image] = {}
    feeds: Feeds = request.app.state.feeds
    cold = await anyio.to_thread.run_sync(farm.cold, job)
    deadline = time.monotonic() + (COLD if cold else LONGEST)
    try:
        async with feeds.listen(job) as listener:
            while not _over(job):
                sight = await listener.next(LISTEN)
                if sight is not None and sight.job is None:
                    raise errors.NotFound(f"job {job.public_id} was deleted")
                if sight is not None and sight.job is not None:
                    job = sight.job
                    seen |= {image.item.index: image for image in sight.images}
                    continue
                if await request.is_disconnected():
                    log.info("job %s is cancelled: its client went away", job.public_id)
                    raise Gone
                if time.monotonic() > deadline:
                    raise _late(job, cold=bool(cold))
    except (NotInTime, Gone, asyncio.CancelledError):
        await asyncio.shield(asyncio.to_thread(_cancel, farm, job))
        raise
    return job, seen


def _over(job: records.Job) -> bool:
    return job.counts.done + job.counts.failed >= job.counts.total or job.state in jobs.FINAL


def _late(job: records.Job, *, cold: bool) -> NotInTime:
    if cold:
        return NotInTime(f"no worker serves the model {job.model}: nothing was rendered")
    return NotInTime(f"job {job.public_id} was not done in {LONGEST:.0f} seconds and is cancelled")


def _cancel(farm: Farm, job: records.Job) -> None:
    try:
        farm.withdraw(stored_jobs.cancel(farm.db, job.tenant_id, job.public_id))
    except errors.Conflict:
        return  # it ended by itself


def answer(
    farm: Farm, job: records.Job, asked: ImageRequest, url: Url, seen: Seen
) -> ImagesResponse:
    """The images of a job whose images are all terminal; those that were not seen are looked
    up. Raises for the first that failed."""
    found = [seen[index] for index in sorted(seen)]
    if len(found) < job.counts.total:
        found, _ = stored_images.page(
            farm.db, job, after=None, limit=job.counts.total, cache=farm.segments
        )
    for image in found:
        if image.state is jobs.ImageState.FAILED:
            raise failure(image)
    inline = asked.response_format == "b64_json"
    return ImagesResponse(
        created=int(job.created_at),
        data=[
            data_of(job, image, data=_bytes(farm, image) if inline else None, url=url)
            for image in found
        ],
        output_format=job.output.format,
        size=found[0].item.size,
        job_id=job.public_id,
    )


def data_of(job: records.Job, image: records.Image, *, data: bytes | None, url: Url) -> ImageData:
    """One image: its bytes if they are given, else where they are."""
    return ImageData(
        b64_json=None if data is None else base64.b64encode(data).decode(),
        url=url(image) if data is None else None,
        seed=image.item.seed,
        id=jobs.image_id(job.public_id, image.item.index),
        sha256=image.sha256.hex() if image.sha256 else None,
    )


def _bytes(farm: Farm, image: records.Image) -> bytes:
    if image.key is None:
        raise errors.NotFound(f"image {image.item.index} has no bytes")
    return farm.blobs.read(image.key, offset=image.offset or 0, length=image.length)


def failure(image: records.Image) -> errors.Error:
    """Why an image failed, as the answer to the request that asked for it."""
    told = f"image {image.item.index}: {image.error_text or image.error_code}"
    if image.error_code == "rejected":
        return Refused(told, param="prompt")
    return NotRendered(told)


def events(made: ImagesResponse, *, kind: str) -> list[bytes]:
    """The answer as server-sent events: one `image_generation.completed` an image, or
    `image_edit.completed`."""
    told = []
    for data in made.data:
        event = {
            "type": f"{kind}.completed",
            "b64_json": data.b64_json,
            "created_at": made.created,
            "output_format": made.output_format,
            "size": made.size,
            "quality": made.quality,
            "background": made.background,
            "usage": NO_TOKENS,
            "seed": data.seed,
            "id": data.id,
        }
        told.append(b"event: %b.completed\ndata: %b\n\n" % (kind.encode(), orjson.dumps(event)))
    return told
