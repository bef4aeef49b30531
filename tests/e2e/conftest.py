"""The two stacks on which stories run: the embedded default and a fleet's servers. The
servers of a story are its own, so that it may kill them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.farm import Farm
from tests.servers import Bucket, PostgresServer, RedisServer, ValkeyServer


@dataclass
class Stack:
    """Servers of one story. make: a farm on them, its processes not yet started; of another
    kind when its class is given."""

    queue: ValkeyServer | RedisServer
    database: PostgresServer | None
    make: Callable[..., Farm]


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Stack]:
    """Valkey, SQLite, a folder."""
    with ExitStack() as stack:
        queue = stack.enter_context(ValkeyServer())

        def make(kind: type[Farm] = Farm, **options: str) -> Farm:
            return stack.enter_context(
                kind(tmp_path / "farm", **{"PROMPTMILL_REDIS_URL": queue.url, **options})
            )

        yield Stack(queue, None, make)


@pytest.fixture
def fleet(tmp_path: Path, s3: Bucket) -> Iterator[Stack]:
    """Redis 7, Postgres, SeaweedFS."""
    with ExitStack() as stack:
        queue = stack.enter_context(RedisServer())
        database = stack.enter_context(PostgresServer())
        servers = {
            **s3.fresh().env(),
            "PROMPTMILL_REDIS_URL": queue.url,
            "PROMPTMILL_DATABASE_URL": database.new_database(),
        }

        def make(kind: type[Farm] = Farm, **options: str) -> Farm:
            return stack.enter_context(kind(tmp_path / "farm", **{**servers, **options}))

        yield Stack(queue, database, make)


@pytest.fixture(params=["embedded", "fleet"])
def stack(request: pytest.FixtureRequest) -> Stack:
    """One story on both stacks."""
    found: Stack = request.getfixturevalue(request.param)
    return found
