"""Connections to S3, one client for each endpoint, made when it is first needed. Credentials
and region come from where boto3 always looks (AWS_* variables, profile, instance role), never
from settings."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from promptmill import errors

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

PUTS = 8  # side by side: boto3 spends a millisecond of CPU on each, more gain little


class Clients:
    """Thread-safe. An endpoint of None is AWS."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str | None, S3Client] = {}

    def of(self, endpoint_url: str | None) -> S3Client:
        if endpoint_url not in self._held:
            with self._lock:
                if endpoint_url not in self._held:
                    self._held[endpoint_url] = connect(endpoint_url)
        return self._held[endpoint_url]

    def close(self) -> None:
        with self._lock:
            while self._held:
                self._held.popitem()[1].close()


def connect(endpoint_url: str | None) -> S3Client:
    """A client of one endpoint. Raises `errors.SettingInvalid`."""
    import boto3
    from botocore.config import Config
    from botocore.handlers import add_expect_header

    config = Config(
        signature_version="s3v4",  # presigned links would else be of version 2
        s3={"addressing_style": "path" if endpoint_url else "auto"},
        connect_timeout=3,
        read_timeout=15,  # three tries end before the watchdog of a worker does
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=4 * PUTS,
    )
    session = boto3.Session()  # of our own: the default one is not thread-safe
    region = session.region_name or ("us-east-1" if endpoint_url else None)
    try:
        client = session.client("s3", endpoint_url=endpoint_url, region_name=region, config=config)
    except ValueError as error:
        raise errors.SettingInvalid(f"PROMPTMILL_S3_ENDPOINT_URL={endpoint_url}: {error}") from None
    # Without `Expect: 100-continue` a put takes one round trip less, and botocore never reads
    # the interim answer: its loop over those headers has no end once the connection has.
    client.meta.events.unregister("before-call.s3", add_expect_header)
    return client
