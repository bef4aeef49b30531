"""celery-batches: a message an image, taken from the broker in batches. Run by
`celery -A benchmarks.served.with_celery_batches worker`; `main` is the sender."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from celery import Celery, signals
from celery_batches import Batches, SimpleRequest

from benchmarks import work
from benchmarks.served.batch import Renderer

IN_HAND = 2  # batches: one is stored while the other renders
held: dict[str, Renderer] = {}

app = Celery("batched", broker=os.environ["BENCH_BROKER"])
app.conf.update(
    # Acknowledged when the batch is stored: a killed worker's messages come back.
    task_acks_late=True,
    # It must be more than a batch for every thread, or no batch ever fills.
    worker_prefetch_multiplier=2 * work.BATCH,
    worker_concurrency=IN_HAND,
    # Threads: one generator, loaded once; torch and file system calls let go of the lock.
    worker_pool="threads",
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    broker_connection_retry_on_startup=True,
)


@signals.worker_init.connect
def load(**_: Any) -> None:
    held["renderer"] = Renderer()


# flush_every: the shape that the generator runs best. flush_interval: seconds that the last,
# incomplete batch waits.
@app.task(base=Batches, name="render", flush_every=work.BATCH, flush_interval=1)
def render(requests: list[SimpleRequest]) -> None:
    held["renderer"]([request.args[0] for request in requests])


def main() -> None:
    """Says that it is ready, then sends the rows that come in as JSON lines."""
    with app.producer_pool.acquire() as producer:
        print("ready", flush=True)
        for line in sys.stdin:
            render.apply_async((json.loads(line),), producer=producer)


if __name__ == "__main__":
    main()
