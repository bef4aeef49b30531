"""What only a GPU shows of checkpoints: the formats that need one, compiled shapes, and that a
picture is the same to the bit whatever its neighbours. Tiny weights: about bytes, not speed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from promptmill.jobs import SOURCE_TASKS, Item
from tests import checkpoints
from worker import shapes
from worker.generators import registry
from worker.generators.base import Generator, Input, Pixels

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
    pytest.mark.filterwarnings("default"),
]


OPTIONS = {"sizes": ["64x64"], "batch_shapes": [1, 2, 4, 8]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


def loaded(folder: Path, name: str, quantization: str) -> Generator:
    place, options = folder / name, folder / "options.json"
    if not place.exists():
        checkpoints.make(name, place)
    options.write_text(json.dumps(OPTIONS))
    generator = registry.create(str(place), str(options))
    generator.load(device="cuda", quantization=quantization)
    generator.warmup(generator.caps.batch_shapes)
    return generator


def main(place: str, options: str, quantization: str, shapes: str) -> None:
    """What a process of its own prints: shape → sha256 of a batch, rendered in that order."""
    generator = registry.create(place, options)
    generator.load(device="cuda", quantization=quantization)
    batches = {n: generator.generate(items(generator, n)) for n in map(int, shapes.split(","))}
    print(
        json.dumps({n: hashlib.sha256(made.tobytes()).hexdigest() for n, made in batches.items()})
    )


def items(generator: Generator, count: int) -> list[Item]:
    steps = min(4, max(1, generator.caps.steps[1]))
    guidance, task = generator.caps.guidance[1], generator.caps.tasks[0]
    return [
        Item(
            *(k, k, 0, f"a house {'and a cat ' * k}", k, 64, 64),
            steps=steps, guidance=guidance, task=task,
        )
        for k in range(count)
    ]  # fmt: skip


def inputs(batch: Sequence[Item]) -> list[Input]:
    """For a task that starts from a picture: one of noise by the item's seed, its left half
    to be made anew."""
    if batch[0].task not in SOURCE_TASKS:
        return []
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :32] = 255
    dice = [np.random.default_rng(item.seed) for item in batch]
    return [Input(one.integers(0, 256, (64, 64, 3), np.uint8), mask) for one in dice]


def differing(generator: Generator, batch: Sequence[Item]) -> tuple[Pixels, Pixels]:
    """The batch, and the batch with the first item in the last place beside others."""
    others = [replace(item, prompt="something else", seed=item.seed + 100) for item in batch[1:]]
    other = [*others, batch[0]]
    return generator.generate(batch, inputs(batch)), generator.generate(other, inputs(other))


@pytest.mark.parametrize("name", list(checkpoints.MAKERS))
@pytest.mark.parametrize("quantization", ["none", "bf16"])
def test_a_picture_is_the_same_beside_any_neighbours(
    folder: Path, name: str, quantization: str
) -> None:
    generator = loaded(folder, name, quantization)
    try:
        for shape in generator.caps.batch_shapes:
            one, other = differing(generator, items(generator, shape))
            assert (one[0] == other[-1]).all(), f"batches of {shape}"
    finally:
        generator.close()


@pytest.mark.parametrize(
    ("name", "quantization"),
    [("flux_schnell", "fp8"), ("flux_schnell", "nf4"), ("janus", "nf4")],
)
def test_smaller_numbers_load_render_and_stay_the_same(
    folder: Path, name: str, quantization: str
) -> None:
    generator = loaded(folder, name, quantization)
    try:
        one, other = differing(generator, items(generator, 4))
        assert (one[0] == other[-1]).all()
        assert one.std() > 0
    finally:
        generator.close()


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("name", "quantization"),
    [
        ("flux_schnell", "fp8"), ("flux_schnell", "nf4"), ("janus", "nf4"), ("sd", "bf16"),
    ],
)  # fmt: skip
def test_workers_make_the_same_bytes_whatever_they_rendered_first(
    folder: Path, tmp_path: Path, name: str, quantization: str
) -> None:
    checkpoints.make(name, folder / name)
    (folder / "options.json").write_text(json.dumps(OPTIONS))
    code = "from tests.gpu.test_checkpoints import main; import sys; main(*sys.argv[1:])"
    place = [str(folder / name), str(folder / "options.json"), quantization]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code, *place, order],
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / order)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for order in ("1,2", "2,1")
    ]  # fmt: skip
    told = []
    for worker in workers:
        out, problems = worker.communicate()
        assert worker.returncode == 0, problems[-4000:]
        told.append(json.loads(out.splitlines()[-1]))
    assert told[0] == told[1]


def test_a_shape_is_found_with_memory_to_spare(folder: Path) -> None:
    generator = loaded(folder, "sd", "bf16")
    try:
        found = shapes.find(generator, items(generator, 1)[0], None, most=8)
        assert found.best in generator.caps.batch_shapes
        assert all(rate > 0 for rate in found.rates.values())
    finally:
        generator.close()
