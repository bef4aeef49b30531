"""What a submission may say, as JSON Schema with a line on each: one table for the OpenAPI document
and for docs/submissions.md."""

from __future__ import annotations

from typing import Any

from api.submissions import head, templates
from promptmill import jobs

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 1}
_NUMBER: Schema = {"type": "number"}
_YES: Schema = {"type": "boolean"}
_OBJECT: Schema = {"type": "object"}
_LISTS: Schema = {"type": "object", "additionalProperties": {"type": "array", "items": _TEXT}}


def _one_of(*values: str) -> Schema:
    return {"enum": list(values)}


PARAMETERS: dict[str, tuple[Schema, str]] = {
    "model": (_TEXT, "which model renders; by itself the farm's own"),
    "n": (_COUNT, "images of each row, at most 10,000"),
    "seed": ({"type": "integer", "minimum": 0}, "of the job; rows derive theirs from it"),
    "size": (_TEXT, "`WIDTHxHEIGHT`, one of the model's `sizes`"),
    "negative_prompt": (_TEXT, "what a picture should not show, for models that can"),
    "steps": (_COUNT, "of a diffusion model"),
    "guidance": (_NUMBER, "how closely a model keeps to the prompt"),
    "lora": (_TEXT, "one of the model's `loras`"),
    "task": (_TEXT, "one of the model's `tasks`"),
    "source": (_TEXT, "the picture that a task starts from"),
    "mask": (_TEXT, "where it is made anew"),
    "strength": (_NUMBER, "from 0.001 to 1, how far it may leave its source"),
    "min_score": (_NUMBER, "from 0 to 1, the score below which an image is rendered again"),
    "max_rerolls": ({"type": "integer", "minimum": 0}, "how often at most, up to 32"),
    "expand": (_YES, "whether a language model writes the prompt out first"),
    "name": (_TEXT, "for people, at most 200 characters"),
    "priority": (_one_of(*jobs.Priority), "`interactive` goes first, `bulk` last"),
    "metadata": (_OBJECT, "what you want to find again with the job, at most 8,192 bytes"),
    "webhook": (_TEXT, "a URL that is told when the job ends"),
    "window": (_TEXT, "`30m`, `24h`, `7d`: so long the job may take, then it is `expired`"),
    "expires_at": (_NUMBER, "the same as Unix seconds"),
    "fingerprint": (_TEXT, "pins the job: only workers with this fingerprint render it"),
    "format": (_one_of("png", "webp", "jpeg"), "of the pictures"),
    "packing": (_one_of("image", "tar"), "an object for each image, or tar parts of many"),
    "prefix": (_TEXT, "where its objects lie, one of `OUTPUT_PREFIXES` or below one"),
    "map": (_TEXT, "`prompt=caption,seed=my_seed`: columns that fields are read from"),
    "on_unsupported": (_one_of("refuse", "warn"), "what a model cannot honour: 400, or left out"),
    "idempotency_key": (_TEXT, "as the header Idempotency-Key: sent again, it makes no second job"),
    "dry_run": (_YES, "answers the plan and writes nothing"),
}
SOURCES: dict[str, tuple[Schema, str]] = {
    "prompt": (_TEXT, "one row"),
    "prompts": ({"type": "array", "items": _TEXT}, "a row each"),
    "items": ({"type": "array", "items": _OBJECT}, "rows with fields of their own"),
    "template": (_TEXT, "text with `${name}` or `__name__`: a row for each choice"),
}
TEMPLATE: dict[str, tuple[Schema, str]] = {
    "variables": (_LISTS, "values of each `${name}`, the last one fastest"),
    "wildcards": (_LISTS, "values of each `__name__`"),
    "sampling": (_one_of(*templates.SAMPLING), "all rows, or some by chance"),
    "count": (_COUNT, "rows at most; `random` needs it"),
}


def document() -> Schema:
    """The schema of a JSON document."""
    told = {name: _said(*each) for name, each in {**SOURCES, **TEMPLATE}.items()}
    params = {name: _listed(name) for name in PARAMETERS}
    groups = {
        "defaults": {name: params[name] for name in PARAMETERS if name in head.DEFAULTS},
        "output": {name: params[name] for name in head.OUTPUT},
    }
    inner = {name: _OBJECT | {"properties": each} for name, each in groups.items()}
    return _OBJECT | {"properties": told | params | inner}


def _listed(name: str) -> Schema:
    schema, text = PARAMETERS[name]
    if name not in head.PRODUCT_ORDER:
        return _said(schema, text)
    return {"description": text, "anyOf": [schema, {"type": "array", "items": schema}]}


def _said(schema: Schema, text: str) -> Schema:
    return {"description": text, **schema}
