"""A checkpoint on this GPU (or, to try it, CPU): images per second of the library's own loop,
of the adapter in each number format, and of a whole farm, with the GPU's idle share meanwhile.

    python -m benchmarks.gpu [--quick] [--model hf:ORG/NAME|FOLDER] [--batch 8]
    python -m benchmarks.gpu --made sdxl_turbo|flux_fifth|janus_pro_1b [--formats bf16,fp8]

--made: a checkpoint as large as a well-known one, with random weights (benchmarks/full_size.py).
Without a model it makes a tiny one, which says something of overhead and nothing of speed."""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import full_size
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
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", default="")
    model.add_argument("--made", choices=list(full_size.MAKERS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--formats", type=lambda t: t.split(","), default=list(quantization.NAMES))
    parser.add_argument("--no-farm", action="store_true")
    given = parser.parse_args()
    named = given.model or given.made or "tiny"
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if given.made and shm.is_dir() else None) as place:
        folder, options = Path(place) / "model", Path(place) / "options.json"
        shape: dict[str, Any] = {"batch_shapes": [1, given.batch] if given.batch > 1 else [1]}
        if given.made:
            full_size.make(given.made, folder, device.choose("auto"))
            device.free_cache()
        elif not given.model:
            checkpoints.make("sdxl_turbo", folder)
            shape["sizes"] = ["64x64"]
        options.write_text(json.dumps(shape))
        figures = _figures(given, given.model or str(folder), options, Path(place) / "farm")
        show("gpu", figures, model=named, device=_device(), batch=given.batch)


def _device() -> str:
    return device.name(device.choose("auto"))


def _figures(given: argparse.Namespace, model: str, options: Path, data: Path) -> Iterator[Figure]:
    """Each as soon as it is measured; the farm's run is as long as the best rate asks for."""
    rate, rounds = 0.0, 2 if given.quick else 5
    for figure in _generators(model, str(options), given.formats, given.batch, rounds):
        yield figure
        if figure.unit == "images/s":
            rate = max(rate, figure.value)
    if not given.no_farm:
        count = max(2 * given.batch, int(rate * (5 if given.quick else 15)))
        yield from _farm(model, options, data, count)


def _generators(
    model: str, options: str, formats: Sequence[str], batch: int, rounds: int
) -> Iterator[Figure]:
    """The bare loop beside the adapter in the same process, then each other format."""
    for name in formats:
        generator = registry.create(model, options)
        begun = time.perf_counter()
        try:
            generator.load(device="auto", quantization=name)
        except errors.Error as refused:
            print(f"{name}: {refused}", flush=True)
            continue
        loaded = time.perf_counter()
        generator.generate(_items(generator, batch))
        print(
            f"{name}: loaded in {loaded - begun:.1f} s, first batch in "
            f"{time.perf_counter() - loaded:.1f} s",
            flush=True,
        )
        rate = _rate(partial(_drawn, generator, batch), batch, rounds)
        yield Figure(f"adapter, {name}", rate, "images/s")
        if memory := _memory():
            yield Figure(f"adapter, {name}, memory", memory, "GB")
        if name == "bf16" and isinstance(generator, Diffusers):
            bare = _rate(partial(_bare, generator, batch), batch, rounds)
            yield Figure("bare pipeline, bf16", bare, "images/s")
            yield Figure("adapter / bare pipeline, bf16", rate / bare, "", 0.95)
        generator.close()
        del generator
        gc.collect()
        device.free_cache()


def _memory() -> float:
    """Most GB that torch held on the GPU since the last call; 0 without one."""
    import torch

    if not torch.cuda.is_available():
        return 0.0
    most = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return most


def _drawn(generator: Generator, batch: int) -> Any:
    return generator.generate(_items(generator, batch))


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
