"""Same fingerprint and item, same bytes: whatever the micro-batch, the worker, the job."""

from __future__ import annotations

from collections import Counter

import pytest

from promptmill import jobs
from promptmill.redis_queue import RedisQueue
from tests.e2e.conftest import Stack
from tests.e2e.farm import Farm
from tests.servers import wait_until
from worker.generators import registry

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

WORDS = (
    "red heart",
    "grinning face",
    "a small green apple on a table",
    "火箭",
    "🍕",
    "soccer ball",
)


def rows() -> list[dict[str, object]]:
    """200 items: names, sentences, other scripts, a long one; seeds given and derived."""
    found: list[dict[str, object]] = [
        {"prompt": f"{WORDS[i % len(WORDS)]} {i // len(WORDS)}", "seed": i} for i in range(199)
    ]
    return [*found, {"prompt": "a very long story about a cat and a dog " * 20, "seed": 7}]


def forwards(farm: Farm, job: str) -> list[tuple[str, int]]:
    """(worker, images) of each forward pass that the job's rows tell of: one commit, in whose
    rows one time of rendering is shared out."""
    rows = farm.query(
        "SELECT worker, finished_at, render_ms FROM images"
        " WHERE job_id = (SELECT id FROM jobs WHERE public_id = :job)",
        job=job,
    )
    times = {(r["worker"], r["finished_at"]): r["render_ms"] for r in rows}
    assert all(times[r["worker"], r["finished_at"]] == r["render_ms"] for r in rows)
    passes = Counter((r["worker"], r["finished_at"]) for r in rows)
    return [(worker, count) for (worker, _), count in passes.items()]


def rendered(farm: Farm, *, batch: int, **query: str) -> tuple[list[str], set[str]]:
    """The sha256 of the 200 in order, each micro-batch as large as asked; and who rendered."""
    job = farm.submit(rows(), **query)["id"]
    farm.wait(job, seconds=90)
    assert farm.check(job) == {"done": 200}
    passes = forwards(farm, job)
    whole, rest = divmod(200, batch)
    assert Counter(count for _, count in passes) == Counter(
        {batch: whole} | ({rest: 1} if rest else {})
    )
    images = farm.images(job)
    assert len({i["fingerprint"] for i in images}) == 1
    return [i["sha256"] for i in images], {worker for worker, _ in passes}


def test_emoji_gan_renders_the_same_bytes_in_every_batch(embedded: Stack) -> None:
    farm = embedded.make(model="emoji-gan").start(workers=1)
    wait_until(lambda: farm.serving() == 1, seconds=120, what="the worker has its weights")
    caps = registry.create("emoji-gan").caps
    item = jobs.Item(index=0, row=0, sample=0, prompt="x", seed=0, width=64, height=64)
    queue = RedisQueue(farm.settings.redis, "emoji-gan")
    seen: dict[str, list[str]] = {}
    for batch in (32, 7, 2, 1):
        queue.set_cap(caps.bucket(item), batch)
        seen[f"batches of {batch}"], workers = rendered(farm, batch=batch)
        assert len(workers) == 1
    farm.add_worker()
    farm.add_worker()
    wait_until(lambda: farm.serving() == 3, seconds=150, what="three workers serve")
    for batch, packing in ((7, "image"), (2, "tar"), (32, "tar")):
        queue.set_cap(caps.bucket(item), batch)
        name = f"three workers, batches of {batch}, packed as {packing}"
        seen[name], workers = rendered(farm, batch=batch, packing=packing)
        assert batch == 32 or len(workers) > 1, name  # one worker may hold 96 of the 200 at once
    reference = seen["batches of 32"]
    assert len(set(reference)) > 190
    assert {name for name, got in seen.items() if got != reference} == set()
