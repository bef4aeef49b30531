"""Every error of the API."""

from __future__ import annotations

from pydantic import Field

from api.schemas.base import Shape


class Fault(Shape):
    """What went wrong."""

    message: str
    type: str
    param: str | None = Field(description="the parameter or field at fault")
    code: str | None = Field(description="stable, for machines")
    line: int | None = Field(default=None, description="of the body, from 1")


class Failure(Shape):
    """Every error of the API."""

    error: Fault
