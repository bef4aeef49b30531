"""The peer that anybody would build first: plain Celery, one task an image. Each task renders
one picture with the same generator, writes its file (fsync) and inserts its row (SQLite,
synchronous=FULL), acknowledged late. One worker process, one thread. Prints images/s and what
is durable."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from celery import Celery, signals

from benchmarks import durable, work
from tests.servers import ValkeyServer

BROKER, FOLDER, MODEL = "PLAIN_BROKER", "PLAIN_FOLDER", "PLAIN_MODEL"
held: dict[str, Any] = {}

app = Celery("plain", broker=os.environ.get(BROKER, "memory://"))
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=4,
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
)


@signals.worker_init.connect
def load(**_: Any) -> None:
    held["generator"] = work.generator(os.environ[MODEL])


@app.task(name="render")
def render(row: dict[str, Any]) -> None:
    number = row["number"]
    [data] = work.encoded(held["generator"], row["model"], [work.item(row)])
    path = Path(os.environ[FOLDER]) / f"{number}.png"
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    with database() as db:
        db.execute("INSERT OR IGNORE INTO images VALUES (?, ?)", (number, len(data)))


def database() -> sqlite3.Connection:
    if "db" not in held:
        db = sqlite3.connect(
            Path(os.environ[FOLDER]) / "rows.db", isolation_level=None, check_same_thread=False
        )
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("CREATE TABLE IF NOT EXISTS images (number INTEGER PRIMARY KEY, bytes INTEGER)")
        held["db"] = db
    return held["db"]  # type: ignore[no-any-return]


def main(model: str, count: int, salt: int) -> None:
    with ValkeyServer() as valkey, tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            BROKER: valkey.url.replace("unix://", "redis+socket://") + "?virtual_host=0",
            FOLDER: folder,
            MODEL: model,
        }
        app.conf.update(broker_url=os.environ[BROKER], broker_read_url=None, broker_write_url=None)
        database()
        worker = subprocess.Popen(
            [
                *(sys.executable, "-m", "celery", "-A", "benchmarks.plain_celery", "worker"),
                *("-P", "threads", "-c", "1", "--without-gossip", "--without-mingle"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            first, *rest = [work.row(item, model) for item in work.items(model, count + 1, salt)]
            _send([first])
            _until(1)
            begun = time.perf_counter()
            _send(rest)
            _until(count + 1)
            rate = count / (time.perf_counter() - begun)
            kept = durable.of_sqlite(lambda told: database().execute(told).fetchone()[0])
            broker = durable.of_redis(valkey.url)
            told = f"{durable.FILES}; {kept}; a message an image in {broker}, acknowledged late"
            print(json.dumps([rate, told]))
        finally:
            worker.terminate()
            worker.wait(30)


def _send(rows: Sequence[dict[str, Any]]) -> None:
    with app.producer_pool.acquire() as producer:
        for row in rows:
            render.apply_async((row,), producer=producer)


def _until(count: int) -> None:
    deadline = time.monotonic() + 300
    while database().execute("SELECT count(*) FROM images").fetchone()[0] < count:
        if time.monotonic() > deadline:
            raise SystemExit("plain Celery did not finish")
        time.sleep(0.02)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
