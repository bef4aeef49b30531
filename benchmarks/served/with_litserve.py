"""LitServe: `python -m benchmarks.served.with_litserve PORT`, then POST /predict."""

from __future__ import annotations

import sys
from typing import Any

import litserve

from benchmarks import work
from benchmarks.served.batch import Renderer


class Pictures(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.render = Renderer()

    def batch(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return inputs

    def predict(self, batch: list[dict[str, Any]]) -> list[int]:
        return self.render(batch)

    def unbatch(self, output: list[int]) -> list[int]:
        return output

    def encode_response(self, output: int) -> dict[str, int]:
        return {"bytes": output}


def main(port: int) -> None:
    # max_batch_size: the shape that the generator runs best. batch_timeout: so long a batch
    # waits for stragglers; clients fill it at once under load, so it costs nothing then.
    api = Pictures(max_batch_size=work.BATCH, batch_timeout=0.05)
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        # Its loop is sequential in a process: with two, one stores while the other renders.
        workers_per_device=2,
        # Recommended for high request rates: ZeroMQ between server and workers.
        fast_queue=True,
        # A request waits for those before it, and none is to be given up.
        timeout=False,
    )
    # One HTTP process: two cores also run two workers and the client.
    server.run(
        host="127.0.0.1",
        port=port,
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
