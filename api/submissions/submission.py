"""Opens a request: picks the parser for its content type, reads the head, resolves the
model, and leaves the rows unread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from api.submissions.head import Head
from api.submissions.limits import Limits
from promptmill.models import Model


@dataclass(frozen=True, slots=True)
class Body:
    """What arrived: the body as byte chunks of any size, its headers and its query."""

    chunks: Iterable[bytes]
    content_type: str = "application/json"
    content_encoding: str = ""
    query: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Submission:
    """A request whose head is valid and whose rows are still to be read, once."""

    head: Head
    model: Model
    limits: Limits
    rows: Iterator[object]


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
    raise NotImplementedError
