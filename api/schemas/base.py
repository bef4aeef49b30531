"""What every answer shares, and the page that every list comes in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

T = TypeVar("T", bound=BaseModel)

MAX_PAGE = 1000


class Shape(BaseModel):
    """What every answer shares: built by us, so nothing is coerced."""

    model_config = ConfigDict(frozen=True)


class Page(Shape, Generic[T]):
    """A page of a list; the next one starts `after` its `last_id`."""

    object: Literal["list"] = "list"
    data: Sequence[T]
    first_id: str | None
    last_id: str | None
    has_more: bool
