"""`submit s3://bucket/key` against a real object store."""

from __future__ import annotations

import gzip

import pytest

from promptmill import errors
from promptmill.cli import objects
from tests.servers import Bucket


@pytest.fixture
def bucket(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name, value in s3.env().items():
        monkeypatch.setenv(name, value)
    return s3


def test_an_object_is_a_body_that_can_be_sent_again(bucket: Bucket) -> None:
    rows = b'{"prompt": "a cat"}\n' * 50_000
    cases = (("a.jsonl", rows, "jsonl", False), ("b", gzip.compress(b"prompt\nx\n"), "csv", True))
    for key, data, kind, gzipped in cases:
        objects._client().put_object(Bucket=bucket.bucket, Key=f"in/{key}", Body=data)
        body = objects.body(f"s3://{bucket.bucket}/in/{key}")
        assert (body.format, body.gzipped, body.size) == (kind, gzipped, len(data))
        assert b"".join(body.open()) == data == b"".join(body.open())


def test_what_cannot_be_read_is_named(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in (f"s3://{bucket.bucket}/none.csv", "s3://no-such-bucket-here/a.csv"):
        with pytest.raises(errors.BadRequest, match=url):
            objects.body(url)
    monkeypatch.setenv("PROMPTMILL_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(errors.StorageDown, match="PROMPTMILL_S3_ENDPOINT_URL"):
        objects.body(f"s3://{bucket.bucket}/a.csv")
