"""What the tests of submissions share: a model, ways to open a request, ways to cut it."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson
from PIL import Image

from api import submissions
from api.submissions.rows import Draft, Rows
from api.submissions.sources import Taken
from promptmill import errors
from promptmill.models import Caps, Model

SIZES = ((64, 64), (128, 128))
STUB = Model("stub", Caps(sizes=SIZES, batch_shapes=(1, 2, 4)), "fp")
RICH = Model(
    "rich",
    Caps(
        sizes=SIZES,
        tasks=("text2image", "img2img", "inpaint", "variation"),
        parameters=("negative_prompt", "steps", "guidance", "strength"),
        steps=(1, 20, 50),
        guidance=(0.0, 7.5, 20.0),
        bucket_fields=("task", "width", "height", "steps", "guidance"),
        scores=True,
        expander="writer-1",
    ),
    "fp-rich",
)


def find(name: str) -> Model:
    for model in (STUB, RICH):
        if model.name == name:
            return model
    raise errors.ModelNotFound(f"there is no model {name!r}")


def cut(body: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


def opened(
    body: bytes | Iterator[bytes],
    kind: str = "application/x-ndjson",
    query: Sequence[tuple[str, str]] = (),
    *,
    limits: submissions.Limits | None = None,
    encoding: str = "",
    key: str | None = None,
    chunk: int = 1 << 16,
) -> submissions.Submission:
    return submissions.open_submission(
        submissions.Body(
            cut(body, chunk) if isinstance(body, bytes) else body,
            content_type=kind,
            content_encoding=encoding,
            query=query,
        ),
        tenant_id=1,
        find_model=find,
        limits=limits or submissions.Limits(),
        default_model="stub",
        idempotency_key=key,
        output_prefixes=("shared", "team/a"),
    )


def document(**fields: Any) -> submissions.Submission:
    return opened(orjson.dumps(fields), "application/json")


def drafts(submission: submissions.Submission) -> list[Draft]:
    sources = Taken(read, None)
    rows = Rows(submission.head, submission.limits, sources, textual=submission.textual)
    return list(rows.drafts(submission.rows))


def read(reference: str) -> bytes:
    """The picture behind a reference: of one colour, in places transparent if it is called
    clear. A text that is called text, and nothing that is called gone."""
    if reference.startswith("gone"):
        raise errors.NotFound("there is no such thing")
    if reference.startswith("text"):
        return b"no picture"
    alpha = 100 if reference.startswith("clear") else 255
    out = io.BytesIO()
    Image.new("RGBA", (8, 8), (len(reference), 0, 0, alpha)).save(out, "PNG")
    return out.getvalue()


def sha(reference: str) -> str:
    return hashlib.sha256(read(reference)).hexdigest()


plan = functools.partial(submissions.plan, read=read, max_queued=None)


def lines(*rows: Any) -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def gz(body: bytes) -> bytes:
    held = io.BytesIO()
    with gzip.GzipFile(fileobj=held, mode="wb", mtime=0) as file:
        file.write(body)
    return held.getvalue()


def refusal(act: Callable[[], object]) -> errors.Error:
    """The error that `act` must raise."""
    try:
        act()
    except errors.Error as error:
        return error
    raise AssertionError("nothing was refused")
