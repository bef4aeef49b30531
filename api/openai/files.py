"""Files of the OpenAI API: uploads that go straight into the store of objects, and the fields
that come with them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, Final

from api.farm import Farm
from api.forms import Form
from api.openai.file_shapes import FileObject
from promptmill import errors, keys, records
from promptmill.store import files as stored
from promptmill.store.files import File

PURPOSES: Final = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
LEAST_SECONDS, MOST_SECONDS = 3600, 2_592_000  # of `expires_after`
BATCH_SECONDS = 2_592_000.0  # that a file for a batch is kept when nothing is said
MEDIA_TYPE = "application/octet-stream"
MOST_NAME = 255


def seconds_after(given: Any, *, name: str) -> float:
    """The `seconds` of an `expires_after`. Raises `errors.BadRequest`."""
    text = str(given)
    if not text.isascii() or not text.isdigit() or not LEAST_SECONDS <= int(text) <= MOST_SECONDS:
        raise errors.BadRequest(
            f"{name} must be from {LEAST_SECONDS} to {MOST_SECONDS} seconds", param=name
        )
    return float(text)


def check_field(name: str, value: str) -> None:
    """Refuses a field of an upload as soon as it comes. Raises `errors.BadRequest`."""
    if name == "purpose":
        if value not in PURPOSES:
            raise errors.BadRequest(f"purpose must be one of {', '.join(PURPOSES)}", param=name)
    elif name == "expires_after[anchor]":
        if value != "created_at":
            raise errors.BadRequest(f"{name} must be created_at", param=name)
    elif name == "expires_after[seconds]":
        seconds_after(value, name=name)
    else:
        raise errors.BadRequest(f"unknown field {name[:100]!r}", param=name[:100])


def expiry(fields: dict[str, str], purpose: str) -> float | None:
    """Seconds that the file is kept; None: until it is deleted."""
    anchor, seconds = (fields.get(f"expires_after[{name}]") for name in ("anchor", "seconds"))
    if (anchor is None) != (seconds is None):
        raise errors.BadRequest(
            "expires_after needs both anchor and seconds", param="expires_after"
        )
    if seconds is not None:
        return float(seconds)
    return BATCH_SECONDS if purpose == "batch" else None


def receive(farm: Farm, tenant: records.Tenant, chunks: Iterable[bytes], content_type: str) -> File:
    """Stores an upload in flat memory. Raises `errors.Error`; nothing is then left."""
    form = Form(chunks, content_type, file="file", on_field=check_field)
    begun = stored.begin(farm.db, tenant.id)
    try:
        put = farm.blobs.create_from(
            keys.file(begun.public_id), form.pieces(), content_type=MEDIA_TYPE
        )
        if "purpose" not in form.fields:
            raise errors.BadRequest("purpose is missing", param="purpose")
        purpose = form.fields["purpose"]
        return stored.finish(
            farm.db,
            begun,
            purpose=purpose,
            filename=plain(form.filename or ""),
            size=put.size,
            expires_in=expiry(form.fields, purpose),
        )
    except BaseException:
        with contextlib.suppress(errors.Unavailable):  # then a day later
            stored.drop(farm.db, begun)  # its object, if there is one, goes with the next sweep
        raise


def keep(farm: Farm, tenant: records.Tenant, data: bytes, filename: str) -> File:
    """Stores a picture that an image is to start from."""
    begun = stored.begin(farm.db, tenant.id)
    put = farm.blobs.create_from(keys.file(begun.public_id), [data], content_type=MEDIA_TYPE)
    return stored.finish(
        farm.db,
        begun,
        purpose="vision",
        filename=plain(filename),
        size=put.size,
        expires_in=float(LEAST_SECONDS),
    )


def plain(filename: str) -> str:
    """The name without folders and control characters, as it is shown and offered."""
    name = filename.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in name if c.isprintable())[:MOST_NAME] or "upload"


def show(file: File) -> FileObject:
    return FileObject(
        id=file.public_id,
        bytes=file.bytes,
        created_at=int(file.created_at),
        filename=file.filename,
        purpose=file.purpose,
        status="processed" if file.state == stored.READY else "uploaded",
        expires_at=None if file.expires_at is None else int(file.expires_at),
    )
