"""Uploads of the OpenAI API: a large file in parts, which go straight into the store of objects
and become one object when the caller says which they are."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from api.farm import Farm
from api.forms import Form
from api.openai import files
from api.openai.file_shapes import Upload, UploadPart, UploadRequest
from promptmill import errors, keys, records
from promptmill.store import files as stored_files
from promptmill.store import uploads as stored

MOST_PART: Final = 64 * 1024 * 1024  # bytes of a part
MOST_FORM: Final = MOST_PART + 64 * 1024  # of the form around it
MOST_BYTES: Final = 8 * 1024**3  # of a whole file


def most_bytes(farm: Farm) -> int:
    """Of a whole file, by the farm's own limit for what is sent, too."""
    return min(MOST_BYTES, farm.settings.max_body_bytes)


def create(farm: Farm, tenant: records.Tenant, given: UploadRequest) -> stored.Upload:
    """Raises `errors.TooLarge`."""
    if given.bytes > (most := most_bytes(farm)):
        raise errors.TooLarge(f"a file has at most {most} bytes", param="bytes")
    usual = files.BATCH_SECONDS if given.purpose == "batch" else None
    return stored.create(
        farm.db,
        tenant.id,
        filename=files.plain(given.filename),
        purpose=given.purpose,
        size=given.bytes,
        keep_seconds=float(given.expires_after.seconds) if given.expires_after else usual,
    )


def receive(
    farm: Farm, tenant: records.Tenant, upload_id: str, chunks: Iterable[bytes], kind: str
) -> UploadPart:
    """Stores a part in flat memory. Raises `errors.Error`; nothing of it is then left."""
    upload = stored.get(farm.db, tenant.id, upload_id)
    form = Form(chunks, kind, file="data", on_field=_no_field)
    part = stored.begin_part(farm.db, upload)
    key = keys.upload_part(upload.public_id, part.public_id)
    try:
        put = farm.blobs.create_from(key, form.pieces(), content_type=files.MEDIA_TYPE)
        if put.size > MOST_PART:
            raise errors.TooLarge(f"a part has at most {MOST_PART} bytes", param="data")
        stored.end_part(farm.db, upload, part, size=put.size, most=most_bytes(farm))
    except BaseException:
        with contextlib.suppress(errors.Unavailable):  # then with the upload
            farm.blobs.delete([key])
            stored.drop_part(farm.db, part)
        raise
    return UploadPart(
        id=part.public_id, created_at=int(part.created_at), upload_id=upload.public_id
    )


def _no_field(name: str, value: str) -> None:
    raise errors.BadRequest(f"unknown field {name[:100]!r}", param=name[:100])


def complete(
    farm: Farm, tenant: records.Tenant, upload_id: str, part_ids: Sequence[str], md5: str | None
) -> stored.Upload:
    """One file of the parts, in the order of `part_ids`. Asked again, it answers what it
    answered. Raises `errors.BadRequest` where they are not the bytes that were announced; the
    upload then stays open."""
    upload = stored.get(farm.db, tenant.id, upload_id)
    if upload.state == stored.COMPLETED:
        return upload
    stored.require_pending(upload)
    parts = stored.chosen(farm.db, upload, part_ids)
    if (size := sum(part.bytes or 0 for part in parts)) != upload.bytes:
        raise errors.BadRequest(
            f"the parts have {size} bytes, {upload.bytes} were announced", param="part_ids"
        )
    file = stored_files.begin(farm.db, tenant.id)
    try:
        whole = hashlib.md5(usedforsecurity=False)
        pieces = _pieces(farm, upload, parts, whole)
        farm.blobs.create_from(keys.file(file.public_id), pieces, content_type=files.MEDIA_TYPE)
        if md5 and md5.lower() != whole.hexdigest():
            raise errors.BadRequest(f"the file's MD5 is {whole.hexdigest()}", param="md5")
        made = stored.complete(farm.db, upload, file, size=size)
    except errors.NotFound:  # another call completed it, and its parts are swept
        made = None
    except BaseException:
        _drop(farm, file)
        raise
    if made is None:
        _drop(farm, file)
        upload = stored.get(farm.db, tenant.id, upload_id)
        if upload.state != stored.COMPLETED:
            raise errors.Conflict("the upload was given up while it was completed")
        return upload
    return stored.get(farm.db, tenant.id, upload_id)


def _pieces(
    farm: Farm, upload: stored.Upload, parts: Sequence[stored.Part], whole: hashlib._Hash
) -> Iterator[bytes]:
    for part in parts:
        for piece in farm.blobs.stream(keys.upload_part(upload.public_id, part.public_id)):
            whole.update(piece)
            yield piece


def _drop(farm: Farm, file: stored_files.File) -> None:
    with contextlib.suppress(errors.Unavailable):  # then a day later
        stored_files.drop(farm.db, file)


def show(farm: Farm, upload: stored.Upload) -> Upload:
    file = None
    if upload.file_id is not None:
        with contextlib.suppress(errors.NotFound):  # it was deleted
            file = files.show(stored_files.get(farm.db, upload.tenant_id, upload.file_id))
    return Upload(
        id=upload.public_id,
        bytes=upload.bytes,
        created_at=int(upload.created_at),
        expires_at=int(upload.expires_at),
        filename=upload.filename,
        purpose=upload.purpose,
        status=upload.state,
        file=file,
    )
