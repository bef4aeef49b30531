"""What is known of a job beside its row: how fast it goes, and what its model's workers tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.rates import Pace


@dataclass(frozen=True, slots=True)
class Outlook:
    """cold: no worker leases of its model; None: not known. lost: (images, seconds at most) that
    wait for leases of workers that fell silent. fingerprints: how many different ones may draw
    what is left. rendering: {step, steps, measuring} of the worker that is furthest with it."""

    pace: Pace
    cold: bool | None
    lost: tuple[int, float] | None = None
    fingerprints: int = 0
    rendering: Mapping[str, Any] | None = None
