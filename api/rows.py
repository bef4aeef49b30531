"""Images as rows of a submission again: what `POST /v1/jobs` takes as JSON lines. Knows no
request and no database."""

from __future__ import annotations

from typing import Any

import orjson

from api.submissions.fields import NAMES
from promptmill import jobs, records

_TAKEN = frozenset({*NAMES, "metadata"})  # what a row means something else by


def row_of(image: records.Image, job: str) -> dict[str, Any]:
    """The row that makes this one image again, whatever the defaults: its seed is the one
    that it had, its metadata follow. What it started from is the job's copy. Metadata named
    like a field stand in an object `metadata`, which a submission opens."""
    item = image.item
    row: dict[str, Any] = {"prompt": item.prompt, "seed": item.seed, "size": item.size}
    if item.negative_prompt:
        row["negative_prompt"] = item.negative_prompt
    if item.steps:
        row["steps"] = item.steps
    row |= {"guidance": item.guidance, "task": item.task}
    if item.source:
        row["source"] = f"{job}/{item.source}"
    if item.strength != jobs.usual_strength(item.task):
        row["strength"] = item.strength
    if item.mask:
        row["mask"] = f"{job}/{item.mask}"
    if item.lora:
        row["lora"] = item.lora
    if item.min_score is not None:
        row |= {"min_score": item.min_score, "max_rerolls": item.max_rerolls}
    if item.expand:
        row["expand"] = True
    if item.custom_id is not None:
        row["id"] = item.custom_id
    named = {name: value for name, value in item.metadata.items() if name in _TAKEN}
    row |= {name: value for name, value in item.metadata.items() if name not in _TAKEN}
    return row | ({"metadata": named} if named else {})


def line_of(image: records.Image, job: str) -> bytes:
    """The row as a line of JSON. job: the public id of the image's."""
    return orjson.dumps(row_of(image, job)) + b"\n"
