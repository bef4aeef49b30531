"""Models, and the workers that serve them."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from api.schemas.base import Shape


class Model(Shape):
    """A registered model and what it can do."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="when it was last registered")
    owned_by: Literal["promptmill"] = "promptmill"
    description: str
    fingerprint: str = Field(description="of the worker that registered it last")
    fingerprints: list[str] = Field(
        description="of its live workers: equal requests have equal bytes within one"
    )
    cold: bool | None = Field(description="no live worker serves it; null: not known")
    workers: int
    sizes: list[str]
    tasks: list[str]
    parameters: list[str] = Field(description="row fields beyond prompt and seed it honours")
    steps: dict[str, float]
    guidance: dict[str, float]
    quantizations: list[str]
    max_batch: int
    max_prompt: int = Field(description="characters")
    scores: bool = Field(description="it scores its pictures")
    loras: list[str] = Field(description="adapters that a row may ask for with `lora`")
    expander: str | None = Field(description="what its workers write prompts out with")


class Worker(Shape):
    """A live worker, as it last reported itself."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: str
    object: Literal["worker"] = "worker"
    model: str
