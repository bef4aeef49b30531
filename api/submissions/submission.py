"""Opens a request: picks the parser for its content type, reads the head, resolves the
model, and leaves the rows unread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from api.submissions import chunks, document, head, parameters, readers
from api.submissions.head import Head
from api.submissions.limits import Limits
from api.submissions.readers import Row
from promptmill import errors
from promptmill.models import Model

NDJSON = frozenset(
    {
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "application/jsonlines",
        "application/json-lines",
    }
)
CSV = frozenset({"text/csv", "application/csv"})
TEXT = frozenset({"text/plain"})
PARQUET = frozenset(
    {"application/vnd.apache.parquet", "application/parquet", "application/x-parquet"}
)
JSON = frozenset({"application/json"})


@dataclass(frozen=True, slots=True)
class Body:
    """What arrived: the body as byte chunks of any size, its headers and its query."""

    chunks: Iterable[bytes]
    content_type: str = "application/json"
    content_encoding: str = ""
    query: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Submission:
    """A request whose head is valid and whose rows are still to be read, once. textual:
    the values of the rows are text (CSV). whole: nothing of the body is still to come."""

    head: Head
    limits: Limits
    rows: Iterator[Row]
    textual: bool = False
    progress: chunks.Progress = field(default_factory=chunks.Progress)
    whole: bool = False

    @property
    def model(self) -> Model:
        return self.head.model


def open_submission(
    body: Body,
    *,
    tenant_id: int,
    find_model: Callable[[str], Model],
    limits: Limits,
    default_model: str,
    idempotency_key: str | None = None,
    output_prefixes: Sequence[str] = (),
) -> Submission:
    """Raises `errors.BadRequest`, `errors.ModelNotFound`, `errors.UnsupportedMedia`,
    `errors.TooLarge`."""
    kind = _kind(body.content_type)
    progress = chunks.Progress()
    raw = chunks.pieces(body.chunks, limit=limits.max_body_bytes, progress=progress)
    data = chunks.plain(raw, encoding=body.content_encoding, limit=limits.max_body_bytes)
    given = head.from_query(body.query)
    context: dict[str, Any] = {
        "tenant_id": tenant_id,
        "find_model": find_model,
        "default_model": default_model,
        "max_n": limits.max_n,
        "idempotency_key": idempotency_key,
        "output_prefixes": output_prefixes,
    }
    if kind in JSON:
        return _document(data, given, limits, progress, context)
    parsed = head.parse(given, textual=True, **context)
    if kind in TEXT:
        _refuse_map(parsed)
    prompt = parsed.column("prompt")
    if kind in NDJSON:
        rows = readers.ndjson(data, max_line=limits.max_line_bytes)
    elif kind in CSV:
        rows = readers.csv_rows(data, max_line=limits.max_line_bytes, required=prompt)
    elif kind in TEXT:
        rows = readers.text(data, max_line=limits.max_line_bytes)
    else:
        from api.submissions import parquet  # Arrow and NumPy: few submissions need them

        rows = parquet.parquet(
            data,
            max_rows=limits.max_rows,
            max_bytes=limits.max_body_bytes,
            max_line=limits.max_line_bytes,
            required=prompt,
        )
    return Submission(parsed, limits, rows, textual=kind in CSV, progress=progress)


def _kind(content_type: str) -> str:
    kind, _, options = content_type.lower().partition(";")
    kind = kind.strip()
    if kind not in NDJSON | CSV | TEXT | PARQUET | JSON:
        raise errors.UnsupportedMedia(
            f"content type {kind[:100] or 'none'} is not accepted: use application/json, "
            "application/x-ndjson, text/csv, text/plain or application/vnd.apache.parquet"
        )
    charset = options.partition("charset=")[2].partition(";")[0].strip(' "')
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise errors.UnsupportedMedia(f"charset {charset[:50]} is not accepted: use UTF-8")
    return kind


def _document(
    data: Iterator[bytes],
    query: dict[str, Any],
    limits: Limits,
    progress: chunks.Progress,
    context: dict[str, Any],
) -> Submission:
    """The query of a JSON document may only ask for a dry run."""
    found = document.read(data, limit=limits.document_bytes)
    for name in query:
        if name != "dry_run":
            raise errors.BadRequest(f"give {name[:100]} in the JSON document", param=name[:100])
    if found.least > limits.max_rows:
        raise errors.TooLarge(
            f"the template makes {found.least:,} prompts or more; a submission may have "
            f"{limits.max_rows:,} (PROMPTMILL_MAX_ROWS)",
            param="template",
        )
    asked = {name: parameters.flag(query, name, textual=True) for name in query}
    params = {**found.params, **asked}
    parsed = head.parse(params, textual=False, recipe=found.recipe, **context)
    if not found.named:
        _refuse_map(parsed)
    rows = found.rows(parsed.job.seed)
    return Submission(parsed, limits, rows, progress=progress, whole=True)


def _refuse_map(parsed: Head) -> None:
    if parsed.columns:
        raise errors.BadRequest("these rows have no columns to map", param="map")
