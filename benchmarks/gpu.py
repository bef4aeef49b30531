"""A checkpoint on this GPU (or, to try it, CPU): images per second of the library's own loop,
of the adapter in each number format, and of a whole farm, with the GPU's idle share meanwhile.

    python -m benchmarks.gpu [--quick] [--model hf:ORG/NAME|FOLDER] [--batch 8]

Without a model it makes a tiny one, which says something of overhead and nothing of speed."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import Figure, show
from promptmill import errors, local
from promptmill.client import Client
from promptmill.jobs import Item
from tests import checkpoints
from worker.generators import checkpoint, device, quantization, registry
from worker.generators.base import Generator
from worker.generators.diffusers import Diffusers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--model", default="")
    parser.add_argument("--batch", type=int, default=8)
    given = parser.parse_args()
    rounds = 2 if given.quick else 5
    with tempfile.TemporaryDirectory() as place:
        model = given.model or str(checkpoints.make("sdxl_turbo", Path(place) / "tiny"))
        options = Path(place) / "options.json"
        shape = {"batch_shapes": [given.batch]}
        options.write_text(json.dumps(shape if given.model else {**shape, "sizes": ["64x64"]}))
        figures = list(_generators(model, str(options), given.batch, rounds))
        figures += _farm(model, options, Path(place) / "farm", given.batch * rounds * 2)
    show("gpu", figures, model=given.model or "tiny", device=_device(), batch=given.batch)


def _device() -> str:
    return device.name(device.choose("auto"))


def _generators(model: str, options: str, batch: int, rounds: int) -> Sequence[Figure]:
    """The bare loop beside the adapter in the same process, then each other format."""
    figures: list[Figure] = []
    for name in quantization.NAMES:
        generator = registry.create(model, options)
        try:
            generator.load(device="auto", quantization=name)
        except errors.Error as refused:
            print(f"{name}: {refused}")
            continue
        rate = _rate(lambda made=generator: made.generate(_items(made, batch)), batch, rounds)
        figures.append(Figure(f"adapter, {name}", rate, "images/s"))
        if name == "bf16" and isinstance(generator, Diffusers):
            bare = _rate(lambda made=generator: _bare(made, batch), batch, rounds)
            figures.append(Figure("bare pipeline, bf16", bare, "images/s"))
            figures.append(Figure("adapter / bare pipeline, bf16", rate / bare, "", 0.95))
        generator.close()
    return figures


def _items(generator: Generator, batch: int) -> list[Item]:
    caps = generator.caps
    (width, height), steps, guidance = caps.sizes[0], caps.steps[1], caps.guidance[1]
    return [
        Item(k, k, 0, f"a red heart {k}", k, width, height, steps=steps, guidance=guidance)
        for k in range(batch)
    ]


def _bare(generator: Diffusers, batch: int) -> Any:
    """The library's own call with the same work."""
    import torch

    [first, *_] = items = _items(generator, batch)
    with torch.inference_mode():
        return generator._pipes[first.task](
            prompt=[item.prompt for item in items],
            num_inference_steps=first.steps,
            guidance_scale=first.guidance,
            width=first.width,
            height=first.height,
            output_type="np",
        )


def _rate(render: Callable[[], Any], batch: int, rounds: int) -> float:
    render()
    rates = []
    for _ in range(rounds):
        begun = time.perf_counter()
        render()
        rates.append(batch / (time.perf_counter() - begun))
    return statistics.median(rates)


def _farm(model: str, options: Path, data: Path, count: int) -> list[Figure]:
    """A job of `count` images on an embedded farm, after one that warms it up."""
    environ = {**os.environ, "PROMPTMILL_MODEL_OPTIONS": str(options), "PROMPTMILL_PORT": "0"}
    name = checkpoint.find(model).name
    with local.Farm(data, model=model, port=0, environ=environ) as farm:
        client = Client(farm.url)
        _until_registered(client, name)
        client.submit([f"warm {k}" for k in range(8)], model=name).wait()
        with Idle() as idle:
            begun = time.perf_counter()
            client.submit([f"a red heart {k}" for k in range(count)], model=name).wait()
            seconds = time.perf_counter() - begun
    figures = [Figure("farm", count / seconds, "images/s")]
    if idle.shares:
        share = statistics.mean(idle.shares)
        figures.append(Figure("GPU idle during the farm's run", share, "", 0.1, "lower"))
    return figures


def _until_registered(client: Client, name: str) -> None:
    deadline = time.monotonic() + 900
    while name not in {str(model["id"]) for model in client.models()}:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no worker of {name} has come up")
        time.sleep(1)


class Idle:
    """Samples how idle the GPU is, while its block runs; nothing where there is no GPU."""

    def __init__(self) -> None:
        self.shares: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Idle:
        if shutil.which("nvidia-smi"):
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()

    def _sample(self) -> None:
        query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not self._stop.wait(0.2):
            told = subprocess.run(query, capture_output=True, text=True, check=False).stdout
            if told.strip():
                self.shares.append(1 - float(told.split()[0]) / 100)


if __name__ == "__main__":
    main()
