"""Ray Serve: `python -m benchmarks.served.with_ray_serve PORT`, then POST /."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from benchmarks import work
from benchmarks.served.batch import FOLDER, MODEL, Renderer

IN_HAND = 2  # batches: one is stored while the other renders


# max_ongoing_requests: at least the batches in hand and as much again that waits, or batches
# never fill. One replica: there is one generator.
@serve.deployment(max_ongoing_requests=8 * work.BATCH, num_replicas=1)
class Pictures:
    def __init__(self) -> None:
        self.renderer = Renderer()

    # max_batch_size: the shape that the generator runs best. batch_wait_timeout_s: so long a
    # batch waits for stragglers; clients fill it at once under load, so it costs nothing then.
    @serve.batch(
        max_batch_size=work.BATCH, batch_wait_timeout_s=0.05, max_concurrent_batches=IN_HAND
    )
    async def render(self, asked: list[dict[str, Any]]) -> list[int]:
        # In a thread, so that the replica goes on collecting the next batch meanwhile.
        return await asyncio.to_thread(self.renderer, asked)

    async def __call__(self, request: Request) -> dict[str, int]:
        return {"bytes": await self.render(await request.json())}


def main(port: int) -> None:
    told = {name: os.environ[name] for name in (MODEL, FOLDER, *work.ONE_THREAD)}
    # No dashboard, whose processes would take of the two cores.
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": told})
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(Pictures.bind(), name="pictures", route_prefix="/")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main(int(sys.argv[1]))
