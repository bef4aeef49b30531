"""The head of a submission: what holds for all its rows."""

from __future__ import annotations

from dataclasses import dataclass

from promptmill.records import NewJob


@dataclass(frozen=True, slots=True)
class Head:
    job: NewJob
    idempotency_key: str | None
    dry_run: bool
