"""The test servers themselves: each fixture answers, outlives a kill -9 with its data, and
dies with the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import redis

from tests.servers import Bucket, PostgresServer, S3Server, ValkeyServer, wait_until

pytestmark = pytest.mark.servers


def test_redis_servers_answer(queue_server_url: str) -> None:
    with redis.Redis.from_url(queue_server_url) as client:
        assert client.ping()


def test_fresh_databases_are_apart(new_postgres_db: Callable[[], str]) -> None:
    first, second = new_postgres_db(), new_postgres_db()
    with psycopg.connect(first) as one, psycopg.connect(second) as two:
        one.execute("create table here (x int)")
        one.commit()
        assert two.execute("select to_regclass('here')").fetchone() == (None,)


def test_database_url_is_fresh(database_url: str) -> None:
    assert database_url.startswith(("sqlite:///", "postgresql://"))


def test_bucket_is_there(s3: Bucket, s3_server: S3Server) -> None:
    client = s3_server.client()
    client.put_object(Bucket=s3.bucket, Key=f"{s3.fresh().prefix}/x", Body=b"1")
    client.close()
    assert s3.fresh().storage_url != s3.fresh().storage_url


def test_valkey_keeps_its_data_through_a_kill() -> None:
    with ValkeyServer() as server, redis.Redis.from_url(server.url) as client:
        client.set("a", "b")
        client.execute_command("WAITAOF", 1, 0, 5000)
        server.kill()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        server.start()
        assert client.get("a") == b"b"


def test_postgres_restarts_after_a_kill_under_load() -> None:
    with PostgresServer() as server:
        url = server.new_database()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create table t as select generate_series(1, 10) x")
            server.kill()
        server.start()
        with psycopg.connect(url) as connection:
            assert connection.execute("select count(*) from t").fetchone() == (10,)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_server_dies_with_its_starter() -> None:
    code = (
        "from tests.servers import ValkeyServer; import signal;"
        "s = ValkeyServer().start(); print(s.process.pid, s.directory, flush=True); signal.pause()"
    )
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    with starter.stdout as output:
        pid, directory = output.readline().split()
    starter.send_signal(signal.SIGKILL)
    starter.wait(10)
    wait_until(lambda: not _alive(int(pid)), seconds=10, what="the orphan died")
    for leftover in sorted(Path(directory).rglob("*"), reverse=True):
        leftover.rmdir() if leftover.is_dir() else leftover.unlink()
    Path(directory).rmdir()


def test_a_server_outlives_the_thread_that_started_it() -> None:
    with ValkeyServer() as server:
        restart = threading.Thread(target=server.restart)
        restart.start()
        restart.join()
        time.sleep(0.2)
        assert server.running
        assert server.ready()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]


def test_chromium_shows_a_page(chromium: object) -> None:
    page = chromium.new_page()  # type: ignore[attr-defined]
    page.set_content("<h1>here</h1>")
    assert page.inner_text("h1") == "here"
    page.close()
