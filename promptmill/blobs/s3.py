"""Objects in an S3 bucket, by boto3.

Objects are created with `If-None-Match: *`. Whether a store honours that header is tried
once, before the first creation; where it does not, a key of `create_many` gets the first twelve
digits of its content's sha256 before its extension, so that no two contents can share a key and
a repetition changes nothing. `Stored.key` is then the longer one."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import random
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from promptmill import errors
from promptmill.blobs import CHUNK, New, Stored, check_key, s3_create_only, s3_faults, s3_upload
from promptmill.blobs.s3_clients import PUTS, Clients

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import (
        HeadObjectOutputTypeDef,
        ObjectIdentifierTypeDef,
        PutObjectRequestTypeDef,
    )

CONFLICTS = 6  # tries while another creation of the same key is under way
LONGEST_LINK = 7 * 24 * 3600.0  # seconds; S3 refuses more
SHA256 = "promptmill-sha256"  # metadata, for stores that keep no checksum


class S3Blobs:
    """`endpoint_url`: of a store other than AWS. `public_endpoint_url`: under which the
    readers of links reach it, where that differs."""

    def __init__(
        self,
        bucket: str,
        *,
        prefix: str = "",
        endpoint_url: str | None = None,
        public_endpoint_url: str | None = None,
    ) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self.endpoint_url = endpoint_url
        self._public_endpoint_url = public_endpoint_url or endpoint_url
        self._lock = threading.Lock()
        self._clients = Clients()
        self._create_only: bool | None = None
        self._puts = ThreadPoolExecutor(PUTS, thread_name_prefix="blob-put")

    def create(
        self, key: str, data: bytes, *, content_type: str, metadata: Mapping[str, str]
    ) -> Stored:
        new = New(check_key(key), data, content_type, metadata)
        with self._outage():
            return self._create(new, create_only=self._honours_create_only())

    def create_many(self, objects: Sequence[New]) -> list[Stored]:
        for new in objects:
            check_key(new.key)
        with self._outage():
            create_only = self._honours_create_only()
            if not create_only:
                objects = [s3_create_only.by_content(new) for new in objects]
            return list(
                self._puts.map(lambda new: self._create(new, create_only=create_only), objects)
            )

    def create_from(self, key: str, pieces: Iterable[bytes], *, content_type: str) -> Stored:
        parts = s3_upload.cut(pieces)
        ahead = list(islice(parts, 2))
        if len(ahead) < 2:
            return self.create(key, b"".join(ahead), content_type=content_type, metadata={})
        check_key(key)
        with self._outage():
            sha256, size = s3_upload.upload(
                self._client(),
                self.bucket,
                self.prefix + key,
                chain(s3_upload.taken(ahead), parts),
                content_type=content_type,
            )
        return Stored(key, size, sha256, created=True, modified=time.time())

    def _create(self, new: New, *, create_only: bool) -> Stored:
        sha256, key = hashlib.sha256(new.data), new.key
        for attempt in range(CONFLICTS):
            there = None if create_only else self._head(key)
            if there is None and self._put(key, new, sha256.digest(), create_only=create_only):
                return Stored(
                    key=key,
                    size=len(new.data),
                    sha256=sha256.hexdigest(),
                    created=True,
                    modified=time.time(),
                    metadata=dict(new.metadata),
                )
            there = there or self._head(key)
            if there is not None:
                return there
            time.sleep(random.uniform(0, 0.05 * 2**attempt))  # a conflict, or deleted since
        raise errors.StorageDown(
            f"bucket {self.bucket} kept refusing to create {key} without there being one"
        )

    def _put(self, key: str, new: New, digest: bytes, *, create_only: bool) -> bool:
        """True if it is there by this call; False if the store says that another is there,
        or if this call broke off and left one, or a creation was under way."""
        from botocore.exceptions import ClientError, HTTPClientError

        request: PutObjectRequestTypeDef = {
            "Bucket": self.bucket,
            "Key": self.prefix + key,
            "Body": new.data,
            "ContentType": new.content_type,
            "ChecksumSHA256": base64.b64encode(digest).decode(),
            "Metadata": {**new.metadata, SHA256: digest.hex()},
        }
        if create_only:
            request["IfNoneMatch"] = "*"
        try:
            self._client().put_object(**request)
        except ClientError as error:
            if s3_faults.status(error) in (409, 412):
                return False
            if s3_faults.status(error) >= 500 and self._head(key):
                return False
            raise
        except HTTPClientError:  # no answer: it may have arrived
            if self._head(key):
                return False
            raise
        return True

    def _honours_create_only(self) -> bool:
        if self._create_only is None:
            with self._lock:
                if self._create_only is None:
                    self._create_only = s3_create_only.honoured(
                        self._client(), self.bucket, self.prefix
                    )
        return self._create_only

    def head(self, key: str) -> Stored | None:
        with self._outage():
            return self._head(check_key(key))

    def _head(self, key: str) -> Stored | None:
        from botocore.exceptions import ClientError

        try:
            there = self._client().head_object(
                Bucket=self.bucket, Key=self.prefix + key, ChecksumMode="ENABLED"
            )
        except ClientError as error:
            if s3_faults.code(error) in s3_faults.ABSENT:
                return None
            raise
        metadata = dict(there["Metadata"])
        said = metadata.pop(SHA256, "")
        return Stored(
            key=key,
            size=there["ContentLength"],
            sha256=_checksum(there) or said or hashlib.sha256(self._get(key)).hexdigest(),
            modified=there["LastModified"].timestamp(),
            metadata=metadata,
        )

    def _get(self, key: str) -> bytes:
        return b"".join(self._body(key, 0, None))

    def read(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        return b"".join(self.stream(key, offset=offset, length=length))

    def stream(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        check_key(key)
        with self._outage():
            return self._guarded(self._body(key, offset, length))

    def _guarded(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        with self._outage():
            yield from pieces

    def _body(self, key: str, offset: int, length: int | None) -> Iterator[bytes]:
        """Asks at once, so that an absent object is known before the first piece."""
        from botocore.exceptions import ClientError

        end = "" if length is None else max(offset + length - 1, offset)
        whole = offset == 0 and length is None
        span: dict[str, Any] = {} if whole else {"Range": f"bytes={offset}-{end}"}
        try:
            answer = self._client().get_object(Bucket=self.bucket, Key=self.prefix + key, **span)
        except ClientError as error:
            if s3_faults.code(error) in s3_faults.ABSENT:
                raise errors.NotFound(f"there is no object {key}") from None
            if s3_faults.status(error) == 416:  # begins past the end
                return iter(())
            raise
        body = answer["Body"]
        if length == 0:
            body.close()
            return iter(())
        return _pieces(body)

    def list(self, prefix: str) -> Iterator[Stored]:
        with self._outage():
            pages = self._client().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix + prefix):
                for there in page.get("Contents", ()):
                    key = there["Key"].removeprefix(self.prefix)
                    if not key.startswith(".probe/"):
                        modified = there["LastModified"].timestamp()
                        yield Stored(key=key, size=there["Size"], sha256="", modified=modified)

    def delete(self, keys: Iterable[str]) -> None:
        names = iter([self.prefix + check_key(key) for key in keys])
        with self._outage():
            while batch := [_named(name) for name in islice(names, 1000)]:
                done = self._client().delete_objects(
                    Bucket=self.bucket, Delete={"Objects": batch, "Quiet": True}
                )
                failed = [
                    e for e in done.get("Errors", ()) if e.get("Code") not in s3_faults.ABSENT
                ]
                if failed:
                    raise errors.StorageDown(
                        f"bucket {self.bucket} did not delete {len(failed)} objects:"
                        f" {failed[0].get('Code')} {failed[0].get('Message', '')}"
                    )

    def url(self, key: str, *, expires: float, filename: str | None = None) -> str | None:
        params = {"Bucket": self.bucket, "Key": self.prefix + check_key(key)}
        if filename is not None:
            plain = filename.encode("ascii", "replace").decode().replace('"', "'")
            params["ResponseContentDisposition"] = f'attachment; filename="{plain}"'
        with self._outage():
            return self._clients.of(self._public_endpoint_url).generate_presigned_url(
                "get_object", Params=params, ExpiresIn=int(min(max(expires, 1), LONGEST_LINK))
            )

    def probe(self) -> None:
        key = f"{self.prefix}.probe/{uuid.uuid4().hex}"
        with self._outage():
            self._honours_create_only()
            client = self._client()
            client.put_object(Bucket=self.bucket, Key=key, Body=b"promptmill")
            with contextlib.closing(client.get_object(Bucket=self.bucket, Key=key)["Body"]) as body:
                body.read()
            client.list_objects_v2(Bucket=self.bucket, Prefix=key, MaxKeys=1)
            client.delete_object(Bucket=self.bucket, Key=key)

    def close(self) -> None:
        self._puts.shutdown()
        self._clients.close()

    def _client(self) -> S3Client:
        return self._clients.of(self.endpoint_url)

    @contextlib.contextmanager
    def _outage(self) -> Iterator[None]:
        """Turns what boto3 raises into `errors.StorageDown` with setting and remedy."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise errors.StorageDown(
                s3_faults.diagnose(
                    error,
                    bucket=self.bucket,
                    url=f"s3://{self.bucket}/{self.prefix}".rstrip("/"),
                    place=self.endpoint_url or "AWS S3",
                )
            ) from error


def _named(name: str) -> ObjectIdentifierTypeDef:
    return {"Key": name}


def _pieces(body: Any) -> Iterator[bytes]:
    with contextlib.closing(body):
        yield from body.iter_chunks(CHUNK)


def _checksum(there: HeadObjectOutputTypeDef) -> str:
    """Hex of the whole object's SHA-256, where the store keeps it."""
    text = there.get("ChecksumSHA256", "")
    return "" if "-" in text else base64.b64decode(text).hex()
