"""The story of a submission: begin, write segments, finish, or abandon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from api.submissions.submission import Submission
from api.submissions.warnings import Warnings
from promptmill.records import Job
from promptmill.store.database import Database


@dataclass(frozen=True, slots=True)
class Received:
    """job: queued, or, when `replay`, the one that this idempotency key made before."""

    job: Job
    replay: bool
    warnings: Warnings


def receive(
    db: Database,
    submission: Submission,
    *,
    costs: Mapping[str, float],
    max_queued: int | None,
) -> Received:
    """Raises `errors.BadRow` and other 4xx errors (nothing is left behind),
    `errors.InProgress`, `errors.IdempotencyMismatch`, `errors.LimitExceeded`."""
    raise NotImplementedError
