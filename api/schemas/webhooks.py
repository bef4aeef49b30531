"""The events of a job that its webhook is told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas.base import Shape


class Attempt(Shape):
    """One attempt to deliver a webhook."""

    at: float
    seconds: float
    status: int | None = Field(description="of the receiver's answer; null: there was none")
    error: str | None = Field(description="null: it was delivered")


class WebhookEvent(Shape):
    """An event of a job, and what became of it."""

    id: str = Field(description="the `webhook-id` of every attempt")
    object: Literal["webhook_event"] = "webhook_event"
    job_id: str
    type: str
    url: str
    state: Literal["delivered", "pending", "given_up"]
    created_at: float
    delivered_at: float | None
    due_at: float | None = Field(description="of the next attempt")
    attempts: list[Attempt] = Field(description="the last fifty, oldest first")


class Redelivery(Shape):
    """How many events will be sent again."""

    object: Literal["redelivery"] = "redelivery"
    job_id: str
    events: int
