"""The dry run: what a submission would cost, without writing anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.submissions.submission import Submission


@dataclass(frozen=True, slots=True)
class Plan:
    """rows, images, duplicates, buckets, bytes, ETA, first rows, warnings, problems."""

    rows: int
    images: int

    def to_json(self) -> dict[str, Any]:
        raise NotImplementedError


def plan(submission: Submission, *, costs: Mapping[str, float], workers: int) -> Plan:
    """costs: measured generator-seconds per image by bucket. workers: live ones (0: no ETA)."""
    raise NotImplementedError
