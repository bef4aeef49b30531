"""What routes ask for: the farm, and the tenant whose key came with the request."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

import anyio.to_thread
from fastapi import Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api import doors, schemas
from api.errors import SAFE
from api.farm import Farm
from promptmill import errors, records
from promptmill.settings import is_loopback
from promptmill.store import tenants
from promptmill.store.tenants import Scope

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
    if origin and request.method not in SAFE and urlsplit(origin).netloc != request.url.netloc:
        raise errors.Forbidden("with PROMPTMILL_AUTH=off other origins may not write")


def caller_of(
    request: Request, farm: Farm, given: HTTPAuthorizationCredentials | None
) -> records.Tenant:
    """Whose request this is. Raises `errors.Unauthorized`, `errors.Forbidden`."""
    if farm.settings.auth == "off":
        _guard_open_farm(request)
        return farm.default_tenant()
    return _allowed(request, farm, given, _needed(request))


async def tenant_of(
    request: Request,
    farm: FarmDep,
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> records.Tenant:
    """The caller; in a thread only where a look at the database is needed."""
    known = hasattr(request.state, "caller")
    if known or (farm.settings.auth == "off" and farm.knows_default_tenant):
        return caller_of(request, farm, given)
    return await anyio.to_thread.run_sync(caller_of, request, farm, given)


def _allowed(
    request: Request, farm: Farm, given: HTTPAuthorizationCredentials | None, needed: Scope
) -> records.Tenant:
    """By the key that `doors` looked up, or one that it lets through."""
    found: tenants.Caller | None
    if hasattr(request.state, "caller"):
        found = request.state.caller
    else:
        found = tenants.authenticate(farm.db, given.credentials) if given else None
    if found is None:
        raise errors.Unauthorized()
    tenant, scopes = found
    if needed not in scopes:
        raise errors.Forbidden(f"this key may not do that: it lacks the scope {needed}")
    return tenant


def _needed(request: Request) -> Scope:
    """By method and path alone, so that no route can forget: a POST to a path that names
    nothing, or the upload that it is a part of, makes something new, every other writes to what
    is there."""
    if request.method in SAFE:
        return Scope.READ
    path = request.scope["route"].path
    named = "{" in path and not path.startswith("/v1/uploads/")
    return Scope.SUBMIT if request.method == "POST" and not named else Scope.MANAGE


def allowed_still(request: Request, farm: Farm) -> bool:
    """Whether the key of a request that is answered for long would be taken now, too. Where
    the database is out of reach, what held before holds."""
    if farm.settings.auth == "off":
        return True
    try:
        found = tenants.authenticate(farm.db, doors.key_of(request.headers) or "")
    except errors.Unavailable:
        return True
    return found is not None and _needed(request) in found[1]


def scraper_of(
    request: Request,
    farm: FarmDep,
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> None:
    """Whoever may read the farm's metrics. Raises `errors.Unauthorized`, `errors.Forbidden`."""
    if farm.settings.auth == "off":
        _guard_open_farm(request)
    else:
        _allowed(request, farm, given, Scope.METRICS)


TenantDep = Annotated[records.Tenant, Depends(tenant_of)]
Limit = Annotated[int, Query(ge=1, le=schemas.MAX_PAGE)]
