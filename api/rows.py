"""Images as rows of a submission again: what `POST /v1/jobs` takes as JSON lines. Knows no
request and no database."""

from __future__ import annotations

from typing import Any

import orjson

from promptmill import records


def row_of(image: records.Image) -> dict[str, Any]:
    """The row that makes this one image again, whatever the defaults: its seed is the one
    that it had, its metadata follow. What it started from is named by the SHA-256 of the
    job's copy, for a person to replace."""
    item = image.item
    row: dict[str, Any] = {"prompt": item.prompt, "seed": item.seed, "size": item.size}
    if item.negative_prompt:
        row["negative_prompt"] = item.negative_prompt
    if item.steps:
        row["steps"] = item.steps
    row |= {"guidance": item.guidance, "task": item.task}
    if item.source:
        row |= {"source": item.source, "strength": item.strength}
    if item.mask:
        row["mask"] = item.mask
    if item.custom_id is not None:
        row["id"] = item.custom_id
    return row | {name: value for name, value in item.metadata.items() if name not in row}


def line_of(image: records.Image) -> bytes:
    """The row as a line of JSON."""
    return orjson.dumps(row_of(image)) + b"\n"
