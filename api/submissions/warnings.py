"""What a submission asked for and will not get: counted all, kept the first hundred."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

KEPT = 100


@dataclass(frozen=True, slots=True)
class Warning:
    """One remark. line: from 1, or None when it is about the defaults."""

    line: int | None
    field: str
    message: str

    def to_json(self) -> dict[str, Any]:
        return {"line": self.line, "field": self.field, "message": self.message}


@dataclass(slots=True)
class Warnings:
    """A capped collection of remarks; `total` counts those that were not kept, too."""

    total: int = 0
    first: list[Warning] = field(default_factory=list)

    def add(self, field: str, message: str, *, line: int | None = None) -> None:
        self.total += 1
        if len(self.first) < KEPT:
            self.first.append(Warning(line, field, message))

    def to_json(self) -> dict[str, Any]:
        """`{"total", "data": [{"line", "field", "message"}]}`."""
        return {"total": self.total, "data": [w.to_json() for w in self.first]}
