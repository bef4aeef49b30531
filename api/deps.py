"""What routes ask for: the farm, and the tenant whose key came with the request."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api import schemas
from api.farm import Farm
from promptmill import errors, records
from promptmill.settings import is_loopback
from promptmill.store import tenants

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
bearer = HTTPBearer(auto_error=False, description="a key made by `promptmill keys create`")


async def farm_of(request: Request) -> Farm:
    """On the event loop: it only looks, and a thread would cost more."""
    farm: Farm = request.app.state.farm
    return farm


FarmDep = Annotated[Farm, Depends(farm_of)]


def _guard_open_farm(request: Request) -> None:
    """Without keys, a browser is the way in for others: refuses names that were rebound to
    this machine, and writes that a page of another origin sends."""
    if not is_loopback(request.url.hostname or ""):
        raise errors.Forbidden("with PROMPTMILL_AUTH=off the API answers to loopback names only")
    origin = request.headers.get("origin")
    if origin and request.method not in _SAFE and urlsplit(origin).netloc != request.url.netloc:
        raise errors.Forbidden("with PROMPTMILL_AUTH=off other origins may not write")


def tenant_of(
    request: Request,
    farm: FarmDep,
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> records.Tenant:
    """The caller. Raises `errors.Unauthorized`."""
    if farm.settings.auth == "off":
        _guard_open_farm(request)
        return farm.default_tenant()
    tenant = tenants.authenticate(farm.db, given.credentials) if given else None
    if tenant is None:
        raise errors.Unauthorized()
    return tenant


TenantDep = Annotated[records.Tenant, Depends(tenant_of)]
Limit = Annotated[int, Query(ge=1, le=schemas.MAX_PAGE)]
