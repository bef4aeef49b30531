"""What the queue costs: memory a job and an image, lease and acknowledgement, and filling a
lane of ten million images again from the database, half of which are done, in one piece and
in thousands."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import redis

from benchmarks import big
from benchmarks.report import Figure, show
from promptmill.jobs import Priority
from promptmill.leases import QueueLane, Span
from promptmill.records import Job
from promptmill.redis_queue import RedisQueue
from promptmill.store import images, jobs, models, tenants
from promptmill.store.database import Database
from promptmill.tables import images as images_table
from tests.servers import PostgresServer, RedisServer, ValkeyServer
from worker.generators import registry

TENANTS = 50
LEASES = 2000
WANT = 64
EVERY, MICRO_BATCH = 1000, 32  # of so many images in a row, so many were lost


def lane(number: int, *, tenant: int) -> QueueLane:
    return QueueLane(
        id=number, job_id=number, count=16, generation=0, version=1, tenant_id=tenant, weight=1.0,
        priority=Priority.NORMAL, bucket=big.BUCKET, cost=0.002,
    )  # fmt: skip


def used(server: redis.Redis) -> int:
    return int(server.info("memory")["used_memory"])


def memory(url: str, jobs_: int, total: int) -> tuple[float, float]:
    """Bytes of Redis for each of many small jobs, and for one of `total` images."""
    server, queue = redis.Redis.from_url(url), RedisQueue(url, "bench")
    queue.set_epoch(queue.begin_rebuild())
    before = used(server)
    for number in range(jobs_):
        queue.replace(lane(number, tenant=number % TENANTS), [Span(0, 16)])
    each = (used(server) - before) / jobs_
    before = used(server)
    queue.replace(lane(jobs_, tenant=0), [Span(0, total)])
    whole = float(used(server) - before)
    queue.close()
    return each, whole


def leases(url: str, count: int) -> float:
    """Images a second that one client leases and acknowledges, 64 at a time."""
    queue = RedisQueue(url, "bench")
    taken = 0
    begun = time.perf_counter()
    for _ in range(count):
        lease = queue.lease("bench", WANT, ttl=60.0)
        if lease is None:
            break
        taken += lease.count
        queue.ack(lease.id)
    rate = taken / (time.perf_counter() - begun)
    queue.close()
    return rate


def rebuilds(name: str, database: str, url: str, total: int, rounds: int) -> list[Figure]:
    """A queue that lost everything gets a lane of `total` images again, half of them done:
    as a worker leaves it that never failed, and as thousands of lost micro-batches leave it."""
    db = Database(database)
    db.migrate()
    tenants.ensure_default(db)
    for model in registry.seeds():
        models.register(db, model)
    job = big.make(db, "emoji-gan", total=total, done=total // 2)
    [lane] = jobs.lanes(db, job.id)
    what = f"{name}: lane of {total:,} filled from the database"
    figures = [Figure(what, rebuild(db, job, url, rounds), "s", 10.0, "lower")]
    lost = images_table.delete().where(images_table.c.position % EVERY < MICRO_BATCH)
    db.write(lambda conn: conn.execute(lost))
    gaps = len(images.gaps(db, lane.id))
    server = redis.Redis.from_url(url)
    server.flushall()
    before = used(server)
    seconds = rebuild(db, job, url, rounds)
    each = (used(server) - before) / gaps
    figures += [
        Figure(f"{what}, {gaps:,} gaps", seconds, "s", 10.0, "lower"),
        Figure(f"{name}: memory of that lane, a gap", each, "bytes"),
    ]
    db.close()
    return figures


def rebuild(db: Database, job: Job, url: str, rounds: int) -> float:
    """Seconds from a queue that lost everything to one that has the job again."""
    queue, times = RedisQueue(url, "emoji-gan"), []
    for _ in range(rounds):
        redis.Redis.from_url(url).flushall()
        begun = time.perf_counter()
        for one in jobs.queue_lanes(db, job):
            queue.replace(one, images.gaps(db, one.id))
        queue.set_epoch(queue.begin_rebuild())
        times.append(time.perf_counter() - begun)
    queue.close()
    return statistics.median(times)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args(arguments).quick
    small, total, rounds = (1000, 100_000, 1) if quick else (20_000, 10_000_000, 3)
    print(f"the queue: {small:,} jobs of 16 images, one job of {total:,}")
    figures = []
    for name, kind in (("Valkey", ValkeyServer), ("Redis", RedisServer)):
        with kind() as server:
            each, whole = memory(server.url, small, total)
            rate = leases(server.url, LEASES)
            figures += [
                Figure(f"{name}: memory a job of 16 images", each, "bytes", 1000.0, "lower"),
                Figure(f"{name}: memory of a job of {total:,}", whole, "bytes", 1000.0, "lower"),
                Figure(f"{name}: leased and acknowledged, many jobs", rate, "images/s"),
            ]
    with (
        ValkeyServer() as server,
        PostgresServer(durable=True) as postgres,
        tempfile.TemporaryDirectory(prefix="pm-bench-") as folder,
    ):
        databases = {
            "SQLite": f"sqlite:///{Path(folder) / 'big.db'}",
            "Postgres": postgres.new_database(),
        }
        for name, database in databases.items():
            figures += rebuilds(name, database, server.url, total, rounds)
    show("queue", figures, jobs=small, images=total, rounds=rounds)


if __name__ == "__main__":
    main()
