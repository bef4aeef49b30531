"""The models that are registered, and the workers that live."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from api import present, schemas
from api.deps import FarmDep, TenantDep
from promptmill.store import models as stored_models

router = APIRouter(prefix="/v1", tags=["models"])


@router.get("/models", response_model=schemas.Page[schemas.Model])
def listing(farm: FarmDep, tenant: TenantDep) -> Any:
    """Every registered model."""
    found = stored_models.all(farm.db)
    shapes = (present.model_of(model, farm.workers(model.name)) for model in found)
    return present.page_of(shapes, has_more=False)


@router.get("/models/{name:path}", response_model=schemas.Model)
def show(name: str, farm: FarmDep, tenant: TenantDep) -> Any:
    """One model."""
    model = stored_models.get(farm.db, name)
    return present.model_of(model, farm.workers(name))


@router.get("/workers", response_model=schemas.Page[schemas.Worker])
def workers(farm: FarmDep, tenant: TenantDep) -> Any:
    """Every live worker, as it last reported itself."""
    found = farm.all_workers()
    return present.page_of(
        (present.worker_of(model, status) for model, status in found), has_more=False
    )
