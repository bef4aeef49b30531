"""BentoML: `python -m benchmarks.served.with_bentoml PORT`, then POST /render."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import bentoml

from benchmarks import work
from benchmarks.served.batch import Renderer


@bentoml.service(
    # A worker has one batch in hand at a time: with two, one stores while the other renders.
    workers=2,
    # timeout: a request waits for those before it, and none is to be given up. concurrency:
    # the batch size, as the documentation says for batchable services.
    traffic={"timeout": 600, "concurrency": work.BATCH},
)
class Pictures:
    def __init__(self) -> None:
        self.renderer = Renderer()

    # max_batch_size: the shape that the generator runs best. max_latency_ms: requests that
    # would wait longer are refused, and none is to be; the window adapts to what it measures.
    @bentoml.api(batchable=True, max_batch_size=work.BATCH, max_latency_ms=600_000)
    def render(self, asked: list[dict[str, Any]]) -> list[int]:
        return self.renderer(asked)


def main(port: int) -> None:
    command = [
        *(str(Path(sys.executable).parent / "bentoml"), "serve"),
        *("benchmarks.served.with_bentoml:Pictures", "--host", "127.0.0.1", "--port", str(port)),
    ]
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]))
