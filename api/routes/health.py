"""Whether the process lives, whether what it needs can be reached, and its metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api import schemas
from api.deps import FarmDep, scraper_of
from promptmill import errors

router = APIRouter(tags=["health"])

PATIENCE = 5.0  # seconds for each check


@router.get("/healthz", response_model=schemas.Health)
async def healthz() -> Any:
    """The process answers."""
    return schemas.Health(status="ok")


@router.get("/readyz", response_model=schemas.Health, responses={503: {"model": schemas.Health}})
async def readyz(farm: FarmDep, response: Response) -> Any:
    """Database, Redis and storage can be reached; 503 names the one that cannot."""
    checks: dict[str, str] = {}
    async with anyio.create_task_group() as group:
        for name, probe in (
            ("database", farm.db.require_schema),
            ("redis", farm.queue(farm.settings.model_name).ping),
            ("storage", farm.blobs.probe),
        ):
            group.start_soon(_check, checks, name, probe)
    ready = all(status == "ok" for status in checks.values())
    response.status_code = 200 if ready else 503
    return schemas.Health(
        status="ok" if ready else "unavailable", checks=dict(sorted(checks.items()))
    )


async def _check(checks: dict[str, str], name: str, probe: Callable[[], None]) -> None:
    checks[name] = f"no answer in {PATIENCE:.0f} seconds"
    with anyio.move_on_after(PATIENCE):
        try:
            await anyio.to_thread.run_sync(probe, abandon_on_cancel=True)
            checks[name] = "ok"
        except errors.Error as exc:
            checks[name] = exc.message


@router.get("/metrics", response_class=Response, dependencies=[Depends(scraper_of)])
def metrics() -> Response:
    """What Prometheus scrapes. Where the farm demands keys: with one of scope `metrics`."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
