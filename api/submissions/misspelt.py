"""Columns that look like a field under another name. Knows names alone, no values."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

COLUMNS = 1_000  # that are looked at
OTHERS = {  # what other tools call a field
    "guidance_scale": "guidance",
    "cfg_scale": "guidance",
    "num_inference_steps": "steps",
    "negative": "negative_prompt",
    "width": "size",
    "height": "size",
}
ALIKE = 0.82  # of a column's and a field's names: "sede" and "seed" are 0.75, "step" 0.89


class Misspelt:
    """Of one submission, whose fields stand in columns of these names."""

    def __init__(self, known: Collection[str]) -> None:
        self._known = known
        self._seen: set[str] = set()

    def meant(self, column: str) -> str | None:
        """The field that a column may be meant for; None when it is like none, or was asked
        about before."""
        if column in self._seen or len(self._seen) >= COLUMNS:
            return None
        self._seen.add(column)
        name = column.lower()
        return OTHERS.get(name) or _nearest(name, self._known)

    def instead(self, field: str, columns: Iterable[str]) -> str | None:
        """The one of a row's columns that may be meant for a field that the row lacks."""
        return _nearest(field, [column for column in columns if column not in self._known])


def _nearest(name: str, names: Collection[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, names, 1, ALIKE)), None)
