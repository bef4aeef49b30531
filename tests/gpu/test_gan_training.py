"""Training on a GPU: it follows the CPU's run, and its checkpoint goes on on a CPU and back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.unit.test_gan_networks import SMALL, tiny_lessons
from worker.gan import batches, train
from worker.gan.accelerator import Place
from worker.gan.checkpoint import Checkpoint
from worker.gan.journal import LINES
from worker.gan.networks import Generator

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
    pytest.mark.filterwarnings("default"),
]

PLAN = batches.Plan(
    steps=8, adversarial=3, batch=4, critic_width=16, penalty_every=2, log_every=1, text_weight=0.5
)


def run(out: Path, place: Place, steps: int = PLAN.steps) -> Checkpoint:
    torch.manual_seed(0)
    plan = replace(PLAN, steps=steps)
    return train.train(tiny_lessons(), plan, out, start=Generator(SMALL), place=place)


def l1(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / LINES).read_text().splitlines()]
    return [line["l1"] for line in lines if "l1" in line]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("compiled", [False, True])
def test_a_gpu_learns_what_a_cpu_learns(tmp_path: Path, compiled: bool) -> None:
    on_gpu = run(tmp_path / "gpu", Place("cuda", compiled))
    run(tmp_path / "cpu", Place("cpu"))
    assert {one.device.type for one in on_gpu.critic.parameters()} == {"cuda"}
    assert on_gpu.average.pixels.weight.is_cuda
    assert l1(tmp_path / "gpu") == pytest.approx(l1(tmp_path / "cpu"), rel=0.05)


def test_a_checkpoint_goes_on_on_another_device(tmp_path: Path) -> None:
    begun = run(tmp_path, Place("cuda"), steps=4)
    held = Checkpoint.fresh(1, rate=0.0, critic_rate=0.0, widths=SMALL, critic_width=16, names=2)
    held.restore(tmp_path)
    for name, value in begun.average.state_dict().items():
        assert torch.equal(value.cpu(), held.average.state_dict()[name]), name
    assert run(tmp_path, Place("cpu"), steps=6).step == 6
    assert run(tmp_path, Place("cuda")).step == 8
    assert len(l1(tmp_path)) == 8
