"""Fixtures: real servers, started when the first test asks for them and stopped with the
session; a scrubbed environment; Chromium."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.servers import (
    Bucket,
    PostgresServer,
    RedisServer,
    S3Server,
    ValkeyServer,
)
from tests.servers.chromium import launched

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def pytest_configure(config: pytest.Config) -> None:
    scrub()


def scrub() -> None:
    """No setting, credential or proxy of the machine reaches a test."""
    for name in list(os.environ):
        if name.startswith(("PROMPTMILL_", "AWS_")) or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ |= {
        "AWS_ACCESS_KEY_ID": S3Server.access_key,
        "AWS_SECRET_ACCESS_KEY": S3Server.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture(scope="session")
def valkey_url(valkey_server: ValkeyServer) -> str:
    return valkey_server.url


@pytest.fixture(scope="session")
def redis7_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis7_url(redis7_server: RedisServer) -> str:
    return redis7_server.url


@pytest.fixture(scope="session", params=["valkey", "redis7"])
def queue_server_url(request: pytest.FixtureRequest) -> str:
    """Both servers of the Redis protocol, one after the other."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> str:
    """The server's own database: for a database of your own ask `new_postgres_db`."""
    return postgres_server.url


@pytest.fixture
def new_postgres_db(postgres_server: PostgresServer) -> Iterator[Callable[[], str]]:
    """Call it for the URL of a fresh, empty database, dropped after the test."""
    made: list[str] = []

    def new() -> str:
        made.append(postgres_server.new_database())
        return made[-1]

    yield new
    for url in made:
        postgres_server.drop_database(url)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh, empty database: a SQLite file, then one on Postgres."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'promptmill.db'}"
    new: Callable[[], str] = request.getfixturevalue("new_postgres_db")
    return new()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture(scope="session")
def s3(s3_server: S3Server) -> Bucket:
    """One bucket for the session; `s3.fresh()` is the same under an unused prefix."""
    return s3_server.new_bucket()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A headless browser. Module-scoped: while playwright lives, its event loop counts as
    running in this thread and `asyncio.run` of other tests would fail."""
    with launched() as browser:
        yield browser
