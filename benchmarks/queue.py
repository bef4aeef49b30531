"""What the queue costs: memory a job and an image, lease and acknowledgement, and filling a
lane of ten million images again from the database, half of which are done."""

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
from promptmill.redis_queue import RedisQueue
from promptmill.store import images, jobs, models, tenants
from promptmill.store.database import Database
from tests.servers import RedisServer, ValkeyServer
from worker.generators import registry

TENANTS = 50
LEASES = 2000
WANT = 64


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


def rebuild(url: str, total: int, rounds: int) -> float:
    """Seconds from a queue that lost everything to one that has the lane again."""
    queue = RedisQueue(url, "emoji-gan")
    with tempfile.TemporaryDirectory(prefix="pm-bench-") as folder:
        db = Database(f"sqlite:///{Path(folder) / 'big.db'}")
        db.migrate()
        tenants.ensure_default(db)
        for model in registry.seeds():
            models.register(db, model)
        job = big.make(db, "emoji-gan", total=total, done=total // 2)
        times = []
        for _ in range(rounds):
            redis.Redis.from_url(url).flushall()
            begun = time.perf_counter()
            for one in jobs.queue_lanes(db, job):
                queue.replace(one, images.gaps(db, one.id))
            queue.set_epoch(queue.begin_rebuild())
            times.append(time.perf_counter() - begun)
        db.close()
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
    with ValkeyServer() as server:
        seconds = rebuild(server.url, total, rounds)
    figures.append(
        Figure(f"lane of {total:,} filled from the database", seconds, "s", 10.0, "lower")
    )
    show("queue", figures, database="SQLite", jobs=small, images=total, rounds=rounds)


if __name__ == "__main__":
    main()
