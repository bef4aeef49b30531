"""Real servers for tests, started by the tests themselves: Valkey, Redis, Postgres and an
S3 (SeaweedFS). Each is a plain class with start, stop, kill, restart; none knows pytest.

A server dies with the process that started it (Linux: PR_SET_PDEATHSIG), so that a killed
test run leaves nothing running."""

from tests.servers.base import (
    MissingServerError,
    Server,
    ServerStartError,
    free_port,
    free_ports,
    wait_until,
)
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer, ValkeyServer
from tests.servers.s3 import Bucket, S3Server

__all__ = [
    "Bucket",
    "MissingServerError",
    "PostgresServer",
    "RedisServer",
    "S3Server",
    "Server",
    "ServerStartError",
    "ValkeyServer",
    "free_port",
    "free_ports",
    "wait_until",
]
