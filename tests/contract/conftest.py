"""A migrated database for the store's tests: made once per module and dialect, emptied for
each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, text

from promptmill import tables
from promptmill.store.database import Database
from tests.servers import PostgresServer


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def migrated(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('store') / 'farm.db'}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.new_database()
    database = Database(url)
    database.migrate()
    yield database
    database.close()
    if request.param == "postgres":
        server.drop_database(url)


def _empty(conn: Connection) -> None:
    """Only tenants are numbered anew: a job's number never comes twice, caches rely on it."""
    names = [table.name for table in tables.metadata.sorted_tables]
    if conn.dialect.name == "postgresql":
        conn.execute(text(f"TRUNCATE {', '.join(names)}"))
        conn.execute(text("ALTER SEQUENCE tenants_id_seq RESTART"))
    else:
        for name in reversed(names):
            conn.execute(text(f"DELETE FROM {name}"))
        conn.execute(text("DELETE FROM sqlite_sequence WHERE name = 'tenants'"))
    conn.execute(
        tables.models.insert().values(
            name="stub", caps={"sizes": [[64, 64]]}, fingerprint="", description="", limits={},
            costs={}, updated_at=0.0,
        )
    )  # fmt: skip
    conn.execute(
        text("INSERT INTO tenants (name, weight, created_at) VALUES ('default', 1.0, 0.0)")
    )


@pytest.fixture
def db(migrated: Database) -> Database:
    """Empty but for the tenant `default`, id 1, and the model `stub`. On SQLite, then on Postgres."""
    migrated.write(_empty)
    return migrated
