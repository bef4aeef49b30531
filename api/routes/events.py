"""Server-sent events of one job: progress, image, state, resync."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import anyio.to_thread
import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api import present
from api.deps import FarmDep, TenantDep, allowed_still
from api.farm import Farm
from api.feed import Feeds, Sight
from api.links import links
from promptmill import jobs, records
from promptmill.store import jobs as stored_jobs

router = APIRouter(prefix="/v1/jobs/{job_id}/events", tags=["events"])

KEEP_ALIVE = 15.0  # seconds between comments that keep proxies from closing
KEY_AGAIN = 10.0  # seconds between two looks at whether the key was revoked meanwhile
LISTEN = 1.0  # seconds between two looks at whether the server stops

Url = Callable[[records.Image], str | None]


def event_id(job: records.Job) -> str:
    """Names progress and state: generation, version, done, failed."""
    return f"{job.generation}-{job.version}-{job.counts.done}-{job.counts.failed}"


def message(event: str, data: Any, id: str | None = None) -> bytes:
    head = f"id: {id}\n" if id else ""
    return f"{head}event: {event}\ndata: ".encode() + orjson.dumps(data) + b"\n\n"


@router.get(
    "",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}, 204: {"description": "all told"}},
)
async def events(job_id: str, request: Request, farm: FarmDep, tenant: TenantDep) -> Response:
    """What happens to a job, until its end. `progress` and `state` hold where it stands,
    `image` a finished image; `resync` says that image events are missing: read the pages."""
    job = await anyio.to_thread.run_sync(stored_jobs.get, farm.db, tenant.id, job_id)
    seen = request.headers.get("last-event-id")
    if seen == event_id(job) and job.state in jobs.FINAL:
        return Response(status_code=204)
    feeds: Feeds = request.app.state.feeds
    allowed = partial(allowed_still, request, farm)
    teller = Teller(farm, links(farm, request, job))
    first = Sight(job, farm.pace(job), missed=_missed(job, seen))
    stories = _stories(feeds, job, teller.tell, first, allowed)
    return _Stream(stories, partial(feeds.place, tenant.id))


class _Stream(StreamingResponse):
    """Events, sent as long as `place` holds one: what taking it raises is the answer."""

    media_type = "text/event-stream"

    def __init__(
        self, stories: AsyncIterator[bytes], place: Callable[[], AbstractContextManager[None]]
    ) -> None:
        super().__init__(stories, headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place():
            await super().__call__(scope, receive, send)


async def _stories(
    feeds: Feeds,
    job: records.Job,
    tell: Callable[[Sight], list[bytes]],
    first: Sight,
    allowed: Callable[[], bool],
) -> AsyncIterator[bytes]:
    yield b"retry: 2000\n\n"
    async with feeds.listen(job) as listener:
        for part in tell(first):
            yield part
        quiet, looked = 0.0, time.monotonic()
        while job.state not in jobs.FINAL and not feeds.stopping():
            if time.monotonic() - looked > KEY_AGAIN:
                looked = time.monotonic()
                if not await anyio.to_thread.run_sync(allowed):
                    return
            sight = await listener.next(LISTEN)
            if sight is None:
                quiet += LISTEN
                if quiet >= KEEP_ALIVE:
                    quiet = 0.0
                    yield b": keep-alive\n\n"
                continue
            quiet = 0.0
            for part in await anyio.to_thread.run_sync(tell, sight):
                yield part
            if sight.last:
                return


def _missed(job: records.Job, seen: str | None) -> bool:
    """Whether images finished after the last event that the client had."""
    return seen is not None and seen.split("-")[2:] != event_id(job).split("-")[2:]


class Teller:
    """Turns sights into messages for one client; says a state only when it changes."""

    def __init__(self, farm: Farm, url: Url) -> None:
        self._farm = farm
        self._url = url
        self._state: str | None = None

    def tell(self, sight: Sight) -> list[bytes]:
        return list(self._parts(sight))

    def _parts(self, sight: Sight) -> Iterator[bytes]:
        job = sight.job
        if job is None:
            yield message("state", {"state": "deleted"})
            return
        if sight.missed:
            yield message("resync", {"job_id": job.public_id})
        for image in sight.images:
            shape = present.image_of(job, image, self._url)
            yield message("image", shape.model_dump(mode="json"))
        shown = present.job_of(job, self._farm.outlook(job, sight.pace))
        yield message("progress", shown.model_dump(mode="json", include=_PROGRESS), event_id(job))
        if shown.state != self._state:
            self._state = shown.state
            yield message("state", {"id": job.public_id, "state": shown.state}, event_id(job))


_PROGRESS = {
    *("id", "state", "counts", "images_per_second", "eta_seconds", "bytes", "cold", "notice"),
    "rendering",
}
