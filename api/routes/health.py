"""Whether the process lives, whether what it needs can be reached, and its metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api import schemas
from api.deps import FarmDep, scraper_of
from api.readiness import check

router = APIRouter(tags=["health"])


@router.get("/healthz", response_model=schemas.Health)
async def healthz() -> Any:
    """The process answers."""
    return schemas.Health(status="ok")


@router.get("/readyz", response_model=schemas.Health, responses={503: {"model": schemas.Health}})
async def readyz(farm: FarmDep, request: Request, response: Response) -> Any:
    """Database, Redis and storage can be reached; 503 names the one that cannot. Storage as
    it was a few seconds ago at most."""
    probes: dict[str, Callable[[], Awaitable[str]]] = {
        "database": partial(check, farm.db.require_schema),
        "redis": partial(check, farm.queue(farm.settings.model_name).ping),
        "storage": request.app.state.storage,
    }
    found = await asyncio.gather(*(probe() for probe in probes.values()))
    ready = all(said == "ok" for said in found)
    response.status_code = 200 if ready else 503
    checks = dict(zip(probes, found, strict=True))
    return schemas.Health(status="ok" if ready else "unavailable", checks=checks)


@router.get("/metrics", response_class=Response, dependencies=[Depends(scraper_of)])
def metrics(request: Request) -> Response:
    """What Prometheus scrapes. Where the farm demands keys: with one of scope `metrics`."""
    return Response(
        generate_latest(request.app.state.metrics.registry), media_type=CONTENT_TYPE_LATEST
    )
