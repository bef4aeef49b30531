"""Same fingerprint and item, same bytes: whatever the micro-batch, the worker, the job."""

from __future__ import annotations

import pytest

from promptmill import jobs
from promptmill.queue import RedisQueue
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


def shas(farm: Farm, **query: str) -> list[str]:
    job = farm.submit(rows(), **query)["id"]
    farm.wait(job, seconds=90)
    assert farm.check(job) == {"done": 200}
    images = farm.images(job)
    assert len({i["fingerprint"] for i in images}) == 1
    return [i["sha256"] for i in images]


def test_emoji_gan_renders_the_same_bytes_in_every_batch(embedded: Stack) -> None:
    farm = embedded.make(model="emoji-gan").start(workers=1)
    wait_until(lambda: farm.serving() == 1, seconds=120, what="the worker has its weights")
    caps = registry.create("emoji-gan").caps
    item = jobs.Item(index=0, row=0, sample=0, prompt="x", seed=0, width=64, height=64)
    queue = RedisQueue(farm.settings.redis, "emoji-gan")
    seen = {}
    for batch in (32, 7, 2, 1):
        queue.set_cap(caps.bucket(item), batch)
        seen[f"batches of {batch}"] = shas(farm)
        assert farm.http.get("/v1/workers").json()["data"][0]["batch"] <= batch
    queue.set_cap(caps.bucket(item), 32)
    farm.add_worker()
    farm.add_worker()
    wait_until(lambda: farm.serving() == 3, seconds=150, what="three workers serve")
    seen["three workers"] = shas(farm)
    seen["tar parts"] = shas(farm, packing="tar")
    reference = seen["batches of 32"]
    assert len(set(reference)) > 190
    assert {name for name, got in seen.items() if got != reference} == set()
