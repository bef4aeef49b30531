"""The peer that anybody would build first: plain Celery, one task an image. Each task renders
one picture with the same generator, writes its file (fsync) and inserts its row (SQLite,
synchronous=FULL), acknowledged late. One worker process, one thread. Prints images/s."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from celery import Celery, signals

from benchmarks.farm import items
from promptmill.jobs import Item
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
    from worker.generators import registry

    generator = registry.create(os.environ[MODEL])
    generator.load(device="auto", quantization="auto")
    generator.warmup((1,))
    held["generator"] = generator


@app.task(name="render")
def render(number: int, salt: int) -> None:
    from worker import encode

    model = os.environ[MODEL]
    item = item_of(model, number, salt)
    [pixels] = held["generator"].generate([item])
    data = encode.encode(pixels, item, model=model, fingerprint="plain", format="png")
    path = Path(os.environ[FOLDER]) / f"{number}.png"
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    with database() as db:
        db.execute("INSERT OR IGNORE INTO images VALUES (?, ?)", (number, len(data)))


def item_of(model: str, number: int, salt: int) -> Item:
    """One of the farm benchmark's items, its prompt its own."""
    [first] = items(model, 1, salt)
    return replace(first, index=number, seed=number, prompt=f"{first.prompt} {number}")


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


def main(model: str, count: int) -> None:
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
            _send(1, salt=0)
            _until(1)
            begun = time.perf_counter()
            _send(count, salt=1, first=1)
            _until(count + 1)
            print(count / (time.perf_counter() - begun))
        finally:
            worker.terminate()
            worker.wait(30)


def _send(count: int, *, salt: int, first: int = 0) -> None:
    with app.producer_pool.acquire() as producer:
        for number in range(first, first + count):
            render.apply_async((number, salt), producer=producer)


def _until(count: int) -> None:
    deadline = time.monotonic() + 300
    while database().execute("SELECT count(*) FROM images").fetchone()[0] < count:
        if time.monotonic() > deadline:
            raise SystemExit("plain Celery did not finish")
        time.sleep(0.02)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
