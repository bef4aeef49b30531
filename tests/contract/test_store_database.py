"""The connection: migrations, transactions and their retries, what an outage is called,
and who leads."""

from __future__ import annotations

import re
import resource
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, event, text

from promptmill import errors, tables
from promptmill.jobs import ImageState
from promptmill.store import control, images, jobs, outbox, submissions, tenants
from promptmill.store import database as database_module
from promptmill.store.database import Database
from tests.contract import store_kit as kit
from tests.servers import PostgresServer

pytestmark = pytest.mark.servers


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def sqlite_db(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'farm.db'}")
    database.migrate()
    yield database
    database.close()


def test_the_file_of_a_database_is_its_owners_alone(sqlite_db: Database, tmp_path: Path) -> None:
    sqlite_db.write(lambda conn: conn.exec_driver_sql("UPDATE tenants SET name = name").rowcount)
    files = sorted(tmp_path.glob("farm.db*"))
    assert len(files) > 1
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_an_unmigrated_database_names_the_command(db: Database) -> None:
    with pytest.raises(errors.DatabaseDown, match="promptmill migrate"):
        db.require_schema()
    with pytest.raises(errors.DatabaseDown, match="promptmill migrate"):
        tenants.queued_images(db, 1)


def test_migrations_at_head_equal_the_tables(db: Database) -> None:
    db.migrate()
    db.require_schema()

    def differences(conn: Connection) -> object:
        options = {"compare_type": True, "compare_server_default": False}
        return compare_metadata(MigrationContext.configure(conn, opts=options), tables.metadata)

    assert db.read(differences) == []
    tenant = tenants.ensure_default(db)
    assert (tenant.id, tenant.name) == (1, "default")


def test_several_may_migrate_at_once(db: Database, database_url: str) -> None:
    others = [Database(database_url) for _ in range(3)]
    faults: list[BaseException] = []

    def migrate(one: Database) -> None:
        try:
            one.migrate()
        except BaseException as fault:
            faults.append(fault)

    running = [threading.Thread(target=migrate, args=(one,)) for one in others]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
    assert faults == []
    db.require_schema()
    for one in others:
        one.close()


def test_a_failed_transaction_leaves_nothing(db: Database) -> None:
    db.migrate()

    def work(conn: Connection) -> None:
        conn.execute(text("UPDATE tenants SET weight = 9 WHERE id = 1"))
        raise errors.Conflict

    with pytest.raises(errors.Conflict):
        db.write(work)
    assert tenants.get(db, 1).weight == 1.0


def test_threads_lose_no_update(db: Database) -> None:
    db.migrate()
    add = text("UPDATE tenants SET weight = weight + 1 WHERE id = 1")

    def work() -> None:
        for _ in range(10):
            db.write(lambda conn: conn.execute(add))

    running = [threading.Thread(target=work) for _ in range(4)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
    assert tenants.get(db, 1).weight == 41.0


def test_leadership_is_held_by_one(db: Database, database_url: str, tmp_path: Path) -> None:
    other = Database(database_url)
    mine, theirs = db.leadership(tmp_path / "lock"), other.leadership(tmp_path / "lock")
    assert not mine.held()
    assert mine.acquire()
    assert mine.acquire()
    assert mine.held()
    assert not theirs.acquire()
    assert not theirs.held()
    mine.release()
    assert not mine.held()
    assert theirs.acquire()
    theirs.release()
    other.close()


def test_a_leader_whose_lock_file_is_gone_finds_out(sqlite_db: Database, tmp_path: Path) -> None:
    lock = sqlite_db.leadership(tmp_path / "lock")
    assert lock.acquire()
    (tmp_path / "lock").unlink()
    assert not lock.held()
    assert lock.acquire()
    lock.release()


def test_a_busy_sqlite_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "_PRAGMAS", ("PRAGMA busy_timeout = 100",))
    db = Database(f"sqlite:///{tmp_path / 'farm.db'}")
    db.migrate()
    blocker = sqlite3.connect(tmp_path / "farm.db", isolation_level=None, check_same_thread=False)
    blocker.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.2, lambda: blocker.execute("ROLLBACK"))
    release.start()
    tenants.create_key(db, "acme")  # the first try finds it locked, a later one does not
    release.join()
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(errors.DatabaseDown, match="busy"):
        tenants.create_key(db, "other")
    blocker.execute("ROLLBACK")
    blocker.close()
    db.close()


def test_a_full_disk_names_the_remedy(sqlite_db: Database) -> None:
    pages = sqlite_db.read(lambda conn: conn.exec_driver_sql("PRAGMA page_count").scalar())

    def work(conn: Connection) -> None:
        conn.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        conn.exec_driver_sql("CREATE TABLE filler AS SELECT zeroblob(1000000) AS z")

    with pytest.raises(errors.DatabaseDown, match="PROMPTMILL_DATA_DIR"):
        sqlite_db.write(work)


def test_a_full_disk_leaves_the_log_for_later(sqlite_db: Database, tmp_path: Path) -> None:
    sqlite_db.scrub()
    sqlite_db.write(lambda conn: conn.exec_driver_sql("CREATE TABLE f AS SELECT zeroblob(200000)"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "farm.db").stat().st_size, hard))
    try:
        assert not sqlite_db.scrub()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sqlite_db.scrub()


def test_sqlite_runs_durably(sqlite_db: Database) -> None:
    def pragma(name: str) -> object:
        return sqlite_db.read(lambda conn: conn.exec_driver_sql(f"PRAGMA {name}").scalar())

    assert (pragma("journal_mode"), pragma("synchronous"), pragma("secure_delete")) == ("wal", 2, 1)
    assert sqlite_db.scrub()


@pytest.mark.parametrize(
    "url", ["mysql://h/d", "sqlite://", "nonsense", "postgres+psycopg2:///x?y=[", "redis://h"]
)
def test_a_url_that_is_none_names_the_setting(url: str) -> None:
    with pytest.raises(errors.Error, match="PROMPTMILL_DATABASE_URL"):
        database = Database(url)
        database.read(lambda conn: None)


def test_a_file_that_cannot_be_opened_is_an_outage(tmp_path: Path) -> None:
    (tmp_path / "junk.db").write_bytes(b"this is no database, whatever its name says" * 100)
    for url in (f"sqlite:///{tmp_path}", f"sqlite:///{tmp_path / 'junk.db'}"):
        db = Database(url)
        with pytest.raises(errors.DatabaseDown, match="SQLite"):
            db.migrate()
        db.close()


def test_an_absent_server_is_an_outage_without_the_password(tmp_path: Path) -> None:
    db = Database(f"postgres://someone:hunter2@/farm?host={tmp_path}")
    with pytest.raises(errors.DatabaseDown, match="PROMPTMILL_DATABASE_URL") as caught:
        db.read(lambda conn: None)
    assert "hunter2" not in str(caught.value)
    assert not db.leadership(tmp_path / "lock").acquire()


def test_a_restarted_postgres_is_found_again(
    postgres_server: PostgresServer, new_postgres_db: Callable[[], str], tmp_path: Path
) -> None:
    db = Database(new_postgres_db())
    db.migrate()
    kit.register(db)
    job = kit.submit(db, 3)
    lock = db.leadership(tmp_path / "lock")
    assert lock.acquire()
    postgres_server.restart()
    assert not lock.held()  # its session died, and so did the lock
    assert kit.now(db, job).counts.total == 3
    kit.commit(db, [kit.done(work) for work in kit.fetch(db, job)])
    assert kit.check(db, job).counts.done == 3
    assert lock.acquire()
    lock.release()
    db.close()


def test_what_is_asked_often_is_found_by_an_index(sqlite_db: Database) -> None:
    """A farm with a million finished jobs must not read them to find the live ones."""
    scanned: list[str] = []
    asking = False

    def explain(conn: Connection, _cursor: object, statement: str, values: Any, *_: object) -> None:
        nonlocal asking
        if asking or not statement.startswith("SELECT"):
            return
        asking = True
        plan = conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
        asking = False
        scanned.extend(
            f"{row[3]}: {statement}"
            for row in plan
            if re.fullmatch(r"SCAN (jobs|images|segments|outbox|job_counters|incidents)", row[3])
        )

    kit.register(sqlite_db)
    job = kit.submit(sqlite_db, 30, lanes=2)
    kit.commit(sqlite_db, [kit.failed(work) for work in kit.fetch(sqlite_db, job)[:9]])
    job = kit.now(sqlite_db, job)
    event.listen(sqlite_db._engine, "before_cursor_execute", explain)
    control.finish_ready(sqlite_db)
    control.open_jobs(sqlite_db, "stub")
    control.expire(sqlite_db)
    outbox.due(sqlite_db, 3)
    control.tombstones(sqlite_db)
    control.sweepable(sqlite_db)
    control.charged(sqlite_db, 1, 1, "crash")
    submissions.stale(sqlite_db, 30.0)
    tenants.queued_images(sqlite_db, 1)
    jobs.page(sqlite_db, 1, after=job.public_id, limit=3)
    images.error_counts(sqlite_db, job.id)
    images.by_sha256(sqlite_db, 1, b"0" * 32)
    images.get(sqlite_db, job, 3)
    for state in ImageState:
        images.page(sqlite_db, job, after=3, limit=5, states=[state])
    images.page(sqlite_db, job, after=3, limit=5)
    jobs.retry(sqlite_db, 1, job.public_id, codes=["render_failed"])
    assert scanned == []
