"""Rows that lie in an S3 bucket, as the body of a submission."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from promptmill import errors, settings
from promptmill.blobs import s3_clients
from promptmill.client.sources import CHUNK, Body, kind_of

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


def body(url: str, *, format: str | None = None) -> Body:
    """The object at `s3://bucket/key`, read with the usual AWS credentials and
    PROMPTMILL_S3_ENDPOINT_URL. Raises `errors.BadRequest`, `errors.StorageDown`."""
    parts = urlsplit(url)
    bucket, key = parts.netloc, parts.path.lstrip("/")
    if not bucket or not key:
        raise errors.BadRequest(f"{url!r} is not s3://BUCKET/KEY")
    client = _client()
    size = _ask(url, lambda: client.head_object(Bucket=bucket, Key=key)["ContentLength"])

    def opened() -> Iterator[bytes]:
        stream = _ask(url, lambda: client.get_object(Bucket=bucket, Key=key)["Body"])
        yield from stream.iter_chunks(CHUNK)

    head = next(opened(), b"")
    kind, gzipped = kind_of(key, head, format)
    return Body(opened, kind, gzipped, size)


def _client() -> S3Client:
    try:
        return s3_clients.connect(settings.read().s3_endpoint_url or None)
    except ImportError as exc:
        raise errors.BadRequest("s3:// needs boto3: pip install 'promptmill[core]'") from exc


def _ask(url: str, call: Any) -> Any:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return call()
    except ClientError as exc:
        detail = exc.response.get("Error", {})
        raise errors.BadRequest(
            f"cannot read {url}: {detail.get('Code')} {detail.get('Message', '')}".rstrip()
        ) from exc
    except BotoCoreError as exc:
        raise errors.StorageDown(
            f"cannot read {url}: {exc}: check the AWS credentials and PROMPTMILL_S3_ENDPOINT_URL"
        ) from exc
