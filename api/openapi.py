"""The OpenAPI document: FastAPI's, with what it cannot know of this API: the one envelope of
all errors, and which statuses an operation may answer with, told by its method, its path and
whether it asks for a key. Routes tell their own successes, and by `failures` what else only
they answer with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fastapi import FastAPI

from api.schemas import Failure
from promptmill import errors

FORM = "multipart/form-data"
UPLOADED = {"type": "string", "format": "binary"}  # a field that is a file

_METHODS = frozenset({"get", "put", "post", "delete", "patch", "head"})
_ENVELOPE = "#/components/schemas/Failure"
_FASTAPI_OWN = ("HTTPValidationError", "ValidationError")  # of a refusal that this API words itself


def install(app: FastAPI) -> None:
    """`app.openapi` builds the document once, at the first request for it."""
    plain: Callable[[], dict[str, Any]] = app.openapi

    def told() -> dict[str, Any]:
        if app.openapi_schema is None:
            complete(plain())
        return app.openapi_schema or {}

    app.openapi = told  # type: ignore[method-assign]


def complete(document: dict[str, Any]) -> None:
    """Adds the answers of failed requests, in place."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in _FASTAPI_OWN:
        schemas.pop(name, None)
    shape = Failure.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= shape.pop("$defs") | {Failure.__name__: shape}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method in _METHODS:
                _answers(path, method, operation)


def failures(*kinds: type[errors.Error]) -> dict[int | str, dict[str, Any]]:
    """For the `responses` of a route: answers that no rule here gives it."""
    return {kind.status: _failure(kind) for kind in kinds}


def form(fields: Mapping[str, Any], *, required: Sequence[str]) -> dict[str, Any]:
    """For the `openapi_extra` of a route that reads a multipart form by itself."""
    schema = {"type": "object", "required": list(required), "properties": dict(fields)}
    return {"requestBody": {"required": True, "content": {FORM: {"schema": schema}}}}


def _answers(path: str, method: str, operation: dict[str, Any]) -> None:
    answers = operation["responses"]
    answers.pop("422", None)
    for kind in _kinds(path, method, operation):
        answers.setdefault(str(kind.status), _failure(kind))
    operation["responses"] = dict(sorted(answers.items()))


def _kinds(path: str, method: str, operation: Mapping[str, Any]) -> Iterator[type[errors.Error]]:
    """The errors that an operation may answer with."""
    yield errors.Internal
    yield errors.BadRequest
    if path == "/healthz":
        return
    yield errors.Unavailable
    if operation.get("security"):
        yield from (errors.Unauthorized, errors.Forbidden, errors.LimitExceeded)
    if "{" in path or "requestBody" in operation or operation.get("parameters"):
        yield errors.NotFound  # what the path, the query or the body names
    if method != "get":
        yield from (errors.Conflict, errors.TooLarge, errors.UnsupportedMedia)


def _failure(kind: type[errors.Error]) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": (kind.__doc__ or "").strip(),
        "content": {"application/json": {"schema": {"$ref": _ENVELOPE}}},
    }
    if kind.retry:
        answer["headers"] = {
            "retry-after": {"description": "seconds to wait", "schema": {"type": "integer"}}
        }
    return answer
