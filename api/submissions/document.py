"""JSON documents: one object with the parameters and, in exactly one of `prompt`,
`prompts`, `items` or `template`, the rows. Held in memory as a whole, so capped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from api.submissions import head, templates
from api.submissions.readers import Row, refuse_doubles, refuse_nul
from promptmill import errors

SOURCES = ("prompt", "prompts", "items", "template")
TEMPLATE = ("variables", "wildcards", "sampling", "count")


@dataclass(frozen=True, slots=True)
class Document:
    """params: for `head.parse`. recipe: the template as given. rows: makes the rows, given
    the job's seed. named: whether the rows have columns that `map` may rename. least: how
    many rows there are at the least, as far as is known before they are made."""

    params: Mapping[str, Any]
    recipe: Mapping[str, Any] | None
    rows: Callable[[int], Iterator[Row]]
    named: bool
    least: int = 0


def read(chunks: Iterable[bytes], *, limit: int) -> Document:
    """Raises `errors.BadRequest`, `errors.BadRow`, `errors.TooLarge`."""
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > limit:
            raise errors.TooLarge(
                f"a JSON document may have {limit} bytes; send JSON lines instead", param="body"
            )
    try:
        document = orjson.loads(body.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise errors.BadRow(
            f"not valid JSON: {error.msg} (column {error.colno})", line=error.lineno, param="body"
        ) from error
    if not isinstance(document, dict):
        raise errors.BadRequest("the body must be a JSON object", param="body")
    refuse_doubles(body.removeprefix(b"\xef\xbb\xbf"), line=None, param="body")
    return _open(document, strings_may_hold_nul=b"\\u0000" in body)


def _open(document: dict[str, Any], *, strings_may_hold_nul: bool) -> Document:
    given = [name for name in SOURCES if document.get(name) is not None]
    if len(given) != 1:
        raise _no_source(document, given)
    source = given[0]
    told = (*SOURCES, *(TEMPLATE if source == "template" else ()))
    params = head.flatten({k: v for k, v in document.items() if k not in told})
    refuse_nul(params, line=None)
    if source == "template":
        recipe = {k: document[k] for k in ("template", *TEMPLATE) if k in document}
        refuse_nul(recipe, line=None)
        template = templates.parse(document)
        least = templates.at_least(template)
        make_rows = partial(templates.rows, template)
        return Document(params, recipe, lambda seed: make_rows(seed=seed), False, least)
    rows = [document["prompt"]] if source == "prompt" else document[source]
    if not isinstance(rows, list):
        raise errors.BadRequest(f"{source} must be a list", param=source)
    make = _items if source == "items" else _prompts
    return Document(params, None, lambda _: make(rows, strings_may_hold_nul), source == "items")


def _no_source(document: Mapping[str, Any], given: Sequence[str]) -> errors.BadRequest:
    """Names what was given instead: a field that is unknown is taken for the rows."""
    wanted = f"give exactly one of {', '.join(SOURCES)}"
    if given:
        return errors.BadRequest(f"{wanted}, not {' and '.join(given)}", param=given[1])
    known = {*head.KNOWN, *head.ALIASES, *TEMPLATE, *SOURCES, "defaults", "output"}
    strange = next((name for name in document if name not in known), None)
    if strange is None:
        return errors.BadRequest(wanted, param="prompts")
    return errors.BadRequest(f"unknown parameter {strange[:100]!r}: {wanted}", param=strange[:100])


def _prompts(prompts: list[Any], strings_may_hold_nul: bool) -> Iterator[Row]:
    for line, prompt in enumerate(prompts, start=1):
        if strings_may_hold_nul:
            refuse_nul(prompt, line=line, param="prompt")
        yield line, {"prompt": prompt}


def _items(items: list[Any], strings_may_hold_nul: bool) -> Iterator[Row]:
    for line, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            raise errors.BadRow("an item must be an object", line=line, param="items")
        if strings_may_hold_nul:
            refuse_nul(item, line=line)
        yield line, item
