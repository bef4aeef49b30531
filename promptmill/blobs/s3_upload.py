"""Large objects go to S3 in parts, in flat memory."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

PART = 8 << 20  # bytes of one part of a large object


def upload(
    client: S3Client, bucket: str, name: str, parts: Iterable[bytes], *, content_type: str
) -> tuple[str, int]:
    """S3's multipart upload of at least one part; its rest is removed when it breaks off. One
    part is held while the next is collected. (hex SHA-256, bytes) of the object."""
    begun = client.create_multipart_upload(Bucket=bucket, Key=name, ContentType=content_type)
    id = begun["UploadId"]
    sha256, size, done = hashlib.sha256(), 0, _no_parts()
    try:
        for number, data in enumerate(parts, start=1):
            put = client.upload_part(
                Bucket=bucket, Key=name, UploadId=id, PartNumber=number, Body=data
            )
            done.append({"ETag": put["ETag"], "PartNumber": number})
            sha256.update(data)
            size += len(data)
            del data  # before the next is collected
        client.complete_multipart_upload(
            Bucket=bucket, Key=name, UploadId=id, MultipartUpload={"Parts": done}
        )
    except BaseException:
        with contextlib.suppress(Exception):
            client.abort_multipart_upload(Bucket=bucket, Key=name, UploadId=id)
        raise
    return sha256.hexdigest(), size


def cut(pieces: Iterable[bytes], size: int = PART) -> Iterator[bytes]:
    """The same bytes in pieces of `size`, the last one shorter."""
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= size:
            with memoryview(held) as view:  # a slice of the bytes themselves would be copied twice
                part = bytes(view[:size])
            del held[:size]
            yield part
            del part
    if held:
        yield bytes(held)


def taken(parts: list[bytes]) -> Iterator[bytes]:
    """The parts in turn, each let go of."""
    while parts:
        yield parts.pop(0)


def _no_parts() -> list[CompletedPartTypeDef]:
    return []
