"""Objects in an S3 bucket, by boto3. Credentials and region come from where boto3 always
looks (AWS_* variables, profile, instance role), never from settings.

Objects are created with `If-None-Match: *`. Whether a store honours that header is tried
once, before the first creation; where it does not, a key gets the first twelve digits of
its content's sha256 before its extension, so that no two contents can share a key and a
repetition changes nothing. `Stored.key` is then the longer one."""

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
from promptmill.blobs import CHUNK, New, Stored, check_key, s3_faults

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import (
        CompletedPartTypeDef,
        HeadObjectOutputTypeDef,
        ObjectIdentifierTypeDef,
        PutObjectRequestTypeDef,
    )

PUTS = 8  # side by side: boto3 spends a millisecond of CPU on each, more gain little
CONFLICTS = 6  # tries while another creation of the same key is under way
PART = 8 << 20  # bytes of one part of a large object
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
        self._clients: dict[str | None, S3Client] = {}
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
            return list(
                self._puts.map(lambda new: self._create(new, create_only=create_only), objects)
            )

    def create_from(self, key: str, pieces: Iterable[bytes], *, content_type: str) -> Stored:
        parts = _cut(pieces, PART)
        first, second = next(parts, b""), next(parts, None)
        if second is None:
            return self.create(key, first, content_type=content_type, metadata={})
        check_key(key)
        with self._outage():
            return self._upload(key, chain((first, second), parts), content_type)

    def _upload(self, key: str, parts: Iterable[bytes], content_type: str) -> Stored:
        """S3's multipart upload; its rest is removed when it breaks off."""
        client, bucket, name = self._client(), self.bucket, self.prefix + key
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
            client.complete_multipart_upload(
                Bucket=bucket, Key=name, UploadId=id, MultipartUpload={"Parts": done}
            )
        except BaseException:
            with contextlib.suppress(Exception):
                client.abort_multipart_upload(Bucket=bucket, Key=name, UploadId=id)
            raise
        return Stored(key, size, sha256.hexdigest(), created=True, modified=time.time())

    def _create(self, new: New, *, create_only: bool) -> Stored:
        sha256 = hashlib.sha256(new.data)
        key = new.key if create_only else _with_hash(new.key, sha256.hexdigest())
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
                    self._create_only = self._try_create_only()
        return self._create_only

    def _try_create_only(self) -> bool:
        """Creates one object twice: an honest store refuses the second."""
        from botocore.exceptions import ClientError

        key = f"{self.prefix}.probe/{uuid.uuid4().hex}"
        client = self._client_unlocked(self.endpoint_url)
        try:
            for body in (b"first", b"second"):
                client.put_object(Bucket=self.bucket, Key=key, Body=body, IfNoneMatch="*")
        except ClientError as error:
            if s3_faults.status(error) not in (400, 412, 501):
                raise
            return s3_faults.status(error) == 412
        else:
            return False
        finally:
            with contextlib.suppress(ClientError):
                client.delete_object(Bucket=self.bucket, Key=key)

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
            return self._client(self._public_endpoint_url).generate_presigned_url(
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
        with self._lock:
            while self._clients:
                self._clients.popitem()[1].close()

    def _client(self, endpoint_url: str | None = None) -> S3Client:
        endpoint_url = endpoint_url or self.endpoint_url
        if endpoint_url not in self._clients:
            with self._lock:
                return self._client_unlocked(endpoint_url)
        return self._clients[endpoint_url]

    def _client_unlocked(self, endpoint_url: str | None) -> S3Client:
        if endpoint_url not in self._clients:
            self._clients[endpoint_url] = _connect(endpoint_url)
        return self._clients[endpoint_url]

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


def _connect(endpoint_url: str | None) -> S3Client:
    import boto3
    from botocore.config import Config

    config = Config(
        signature_version="s3v4",  # presigned links would else be of version 2
        s3={"addressing_style": "path" if endpoint_url else "auto"},
        connect_timeout=3,
        read_timeout=20,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=4 * PUTS,
    )
    session = boto3.Session()  # of our own: the default one is not thread-safe
    region = session.region_name or ("us-east-1" if endpoint_url else None)
    try:
        return session.client("s3", endpoint_url=endpoint_url, region_name=region, config=config)
    except ValueError as error:
        raise errors.SettingInvalid(f"PROMPTMILL_S3_ENDPOINT_URL={endpoint_url}: {error}") from None


def _named(name: str) -> ObjectIdentifierTypeDef:
    return {"Key": name}


def _no_parts() -> list[CompletedPartTypeDef]:
    return []


def _cut(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of `size`, the last one shorter."""
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)


def _pieces(body: Any) -> Iterator[bytes]:
    with contextlib.closing(body):
        yield from body.iter_chunks(CHUNK)


def _with_hash(key: str, sha256: str) -> str:
    folder, slash, name = key.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    stem, end = (stem, dot + extension) if dot else (name, "")
    return f"{folder}{slash}{stem}-{sha256[:12]}{end}"


def _checksum(there: HeadObjectOutputTypeDef) -> str:
    """Hex of the whole object's SHA-256, where the store keeps it."""
    text = there.get("ChecksumSHA256", "")
    return "" if "-" in text else base64.b64decode(text).hex()
