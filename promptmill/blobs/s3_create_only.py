"""Whether a store creates without overwriting (`If-None-Match: *`), and names for one that does
not."""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from promptmill.blobs import New, s3_faults

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


def honoured(client: S3Client, bucket: str, prefix: str) -> bool:
    """Creates one object twice: an honest store refuses the second."""
    from botocore.exceptions import ClientError

    key = f"{prefix}.probe/{uuid.uuid4().hex}"
    try:
        for body in (b"first", b"second"):
            client.put_object(Bucket=bucket, Key=key, Body=body, IfNoneMatch="*")
    except ClientError as error:
        if s3_faults.status(error) not in (400, 412, 501):
            raise
        return s3_faults.status(error) == 412
    else:
        return False
    finally:
        with contextlib.suppress(ClientError):
            client.delete_object(Bucket=bucket, Key=key)


def by_content(new: New) -> New:
    """The same under its key with the first twelve digits of its SHA-256 before the extension."""
    folder, slash, name = new.key.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    stem, end = (stem, dot + extension) if dot else (name, "")
    digest = hashlib.sha256(new.data).hexdigest()
    return replace(new, key=f"{folder}{slash}{stem}-{digest[:12]}{end}")
