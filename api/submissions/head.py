"""The head of a submission: what holds for all its rows, from the query of a streamed
body or from a JSON document. Unknown parameters are refused by name."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from api.submissions import fields, parameters
from api.submissions.warnings import Warnings
from promptmill import errors, jobs, records
from promptmill.models import Model

# A default of these may be a list: the job is then the product, the last one fastest.
PRODUCT_ORDER = (
    "task",
    "size",
    "source",
    "mask",
    "negative_prompt",
    "steps",
    "guidance",
    "strength",
    "lora",
    "min_score",
    "max_rerolls",
    "expand",
    "seed",
)
DEFAULTS = frozenset({*PRODUCT_ORDER, "n"})
OUTPUT = ("format", "packing", "prefix")
JOB = frozenset(
    {"model", "name", "priority", "metadata", "webhook", "fingerprint", "expires_at", "window"}
)
INTAKE = frozenset({"map", "on_unsupported", "idempotency_key", "dry_run"})
KNOWN = DEFAULTS | JOB | INTAKE | frozenset(OUTPUT)
ALIASES = {"negative": "negative_prompt"}


@dataclass(frozen=True, slots=True)
class Defaults:
    """one: a value for a field; many: lists of values, in PRODUCT_ORDER. Both hold parsed
    item values (`size` as (width, height)); `n` stands apart."""

    n: int = 1
    one: Mapping[str, Any] = field(default_factory=dict)
    many: tuple[tuple[str, tuple[Any, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Head:
    """columns: field by the column that it is read from, where they differ. canonical:
    the bytes that the request hash begins with. warn: drop what the model cannot honour
    and say so, rather than refuse it."""

    job: records.NewJob
    model: Model
    defaults: Defaults
    columns: Mapping[str, str]
    warn: bool
    idempotency_key: str | None
    dry_run: bool
    canonical: bytes
    warnings: Warnings

    def column(self, field: str) -> str:
        """The column that a field is read from."""
        return next((column for column, name in self.columns.items() if name == field), field)


def from_query(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Query pairs as parameters; a repeated one becomes a list."""
    given: dict[str, Any] = {}
    for name, value in pairs:
        if name not in given:
            given[name] = value
        elif isinstance(given[name], list):
            given[name].append(value)
        else:
            given[name] = [given[name], value]
    return given


def flatten(document: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a JSON document: its objects `defaults` and `output` are opened."""
    flat = {k: v for k, v in document.items() if k not in ("defaults", "output")}
    for group, allowed in (("defaults", None), ("output", OUTPUT)):
        inner = document.get(group)
        if inner is None:
            continue
        if not isinstance(inner, dict):
            raise errors.BadRequest(f"{group} must be an object", param=group)
        for name, value in inner.items():
            if name in flat:
                raise errors.BadRequest(f"{name} is given twice", param=name)
            if allowed is not None and name not in allowed:
                raise errors.BadRequest(f"unknown parameter {group}.{name}", param=name)
            flat[name] = value
    return flat


def parse(
    given: Mapping[str, Any],
    *,
    textual: bool,
    tenant_id: int,
    find_model: Callable[[str], Model],
    default_model: str,
    max_n: int,
    idempotency_key: str | None = None,
    output_prefixes: Sequence[str] = (),
    recipe: Mapping[str, Any] | None = None,
) -> Head:
    """Raises `errors.BadRequest` naming the parameter, or `errors.ModelNotFound`."""
    params = _known(given)
    warnings = Warnings()
    model = find_model(parameters.text(params, "model", 200) or default_model)
    warn = parameters.choice(params, "on_unsupported", ("refuse", "warn"), "refuse") == "warn"
    parsers = fields.Parsers(model, textual=textual, max_n=max_n)
    defaults = _defaults(params, parsers, warnings if warn else None)
    key = idempotency_key or parameters.text(params, "idempotency_key", 255)
    if key is not None and (len(key) > 255 or not key.isprintable()):
        raise errors.BadRequest(
            "the idempotency key must be up to 255 printable characters", param="idempotency_key"
        )
    seed = params.get("seed")
    job = records.NewJob(
        tenant_id=tenant_id,
        model=model.name,
        name=parameters.text(params, "name", 200) or "",
        priority=jobs.Priority(
            parameters.choice(params, "priority", tuple(jobs.Priority), jobs.Priority.NORMAL)
        ),
        seed=_job_seed(tenant_id, key) if _listed(seed) else parsers.seed(seed),
        defaults={k: params[k] for k in params if k in DEFAULTS},
        output=parameters.output(params, output_prefixes),
        metadata=parameters.metadata(params.get("metadata"), textual),
        webhook=parameters.webhook(params),
        fingerprint=parameters.text(params, "fingerprint", 200),
        expires_at=parameters.expires(params, textual),
        recipe=recipe,
    )
    return Head(
        job=job,
        model=model,
        defaults=defaults,
        columns=parameters.columns(params.get("map")),
        warn=warn,
        idempotency_key=key,
        dry_run=parameters.flag(params, "dry_run", textual),
        canonical=_canonical(params, model, recipe),
        warnings=warnings,
    )


def _known(given: Mapping[str, Any]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for alias, value in given.items():
        name = ALIASES.get(alias, alias)
        if name not in KNOWN:
            raise errors.BadRequest(f"unknown parameter {name[:100]!r}", param=name[:100])
        if name in params:
            raise errors.BadRequest(f"{name} is given twice", param=name)
        if value is not None:
            params[name] = value
    return params


def _listed(value: Any) -> bool:
    return value is None or isinstance(value, list)


def _job_seed(tenant_id: int, key: str | None) -> int:
    """Random, but the same when an upload is sent again under its key."""
    if key is None:
        return secrets.randbits(jobs.SEED_BITS)
    digest = hashlib.sha256(f"promptmill-job-seed-v1:{tenant_id}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - jobs.SEED_BITS)


def _defaults(
    params: Mapping[str, Any], parsers: fields.Parsers, warnings: Warnings | None
) -> Defaults:
    one: dict[str, Any] = {}
    many: list[tuple[str, tuple[Any, ...]]] = []
    for name in PRODUCT_ORDER:
        if name not in params or (name == "seed" and not isinstance(params[name], list)):
            continue
        listed = isinstance(params[name], list)
        values = [
            parsed
            for value in (params[name] if listed else [params[name]])
            for parsed in _honoured(parsers.by_name[name], name, value, warnings)
        ]
        if listed and not params[name]:
            raise errors.BadRequest(f"the list {name} is empty", param=name)
        if listed and values:
            many.append((name, tuple(values)))
        elif values:
            one[name] = values[0]
    return Defaults(parsers.n(params.get("n", 1)), one, tuple(many))


def _honoured(parse: fields.Parse, name: str, value: Any, warnings: Warnings | None) -> list[Any]:
    try:
        return [parse(value)]
    except errors.UnsupportedParameter as error:
        if warnings is None:
            raise
        warnings.add(name, error.message)
        return []


def _canonical(params: Mapping[str, Any], model: Model, recipe: Mapping[str, Any] | None) -> bytes:
    """The order of a recipe's variables counts (it orders the images), so it is kept."""
    told = {k: v for k, v in params.items() if k not in ("dry_run", "idempotency_key", "model")}
    head = orjson.dumps({"model": model.name, **told}, option=orjson.OPT_SORT_KEYS)
    return head + b"\n" + orjson.dumps(recipe) + b"\n"
