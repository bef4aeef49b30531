"""Where a network learns: what `--device` comes to, that batches and networks go there, and that
compiled networks learn the same."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.unit.test_gan_networks import SMALL, tiny_lessons
from worker.compress import student
from worker.gan import accelerator, batches, judge, precision, train
from worker.gan.accelerator import Place
from worker.gan.networks import Generator

PLAN = batches.Plan(
    steps=3, adversarial=1, batch=4, critic_width=16, penalty_every=2, text_weight=0.5
)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine that has a GPU and all that a compiler takes."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(accelerator.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(accelerator.shutil, "which", lambda name: name)
    return monkeypatch


def test_auto_is_the_gpu_of_a_process_alone(gpu: pytest.MonkeyPatch) -> None:
    asked = ("auto", "cpu", "cpu:0", "cuda:1")
    assert [accelerator.device(one) for one in asked] == ["cuda", "cpu", "cpu", "cuda:1"]
    for one in ("cuda:2", "cuda:x", "cuda:-1"):
        with pytest.raises(argparse.ArgumentTypeError, match=one):
            accelerator.device(one)
    gpu.setenv("WORLD_SIZE", "2")
    assert accelerator.device("auto") == "cpu"
    with pytest.raises(argparse.ArgumentTypeError, match="several processes"):
        accelerator.device("cuda")
    gpu.setattr(torch.cuda, "is_available", lambda: False)
    assert accelerator.device("auto") == "cpu"


@pytest.mark.parametrize("command", [train.main, student.main, judge.main])
def test_a_device_that_is_not_here_is_refused_in_a_line(
    command: Callable[[list[str]], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for asked, told in (("cuda", "torch sees no GPU here"), ("tpu", "there is auto, cpu and cuda")):
        with pytest.raises(SystemExit, match="2"):
            command(["--device", asked])
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.endswith(f"error: argument --device: '{asked}': {told}")


def test_a_gpu_compiles_where_it_can_and_else_says_why(
    gpu: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    accelerator.add_place(parser)

    def place(*asked: str) -> Place:
        return accelerator.place(**vars(parser.parse_args(asked)))

    assert place() == Place("cuda", compiled=True)
    assert place("--no-compile") == Place("cuda") and place("--device", "cpu") == accelerator.CPU
    assert capsys.readouterr().out == ""
    gpu.setattr(accelerator.shutil, "which", lambda name: None)
    assert place() == Place("cuda")
    assert capsys.readouterr().out == "networks are not compiled: there is no C compiler\n"
    gpu.setattr(accelerator.importlib.util, "find_spec", lambda name: None)
    assert accelerator.compiler_missing("cuda") == "Triton is not installed"
    gpu.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    assert "7.0" in accelerator.compiler_missing("cuda")


def test_a_copy_to_a_gpu_waits_for_nothing() -> None:
    class Noted:
        pinned = False

        def pin_memory(self) -> Noted:
            self.pinned = True
            return self

        def to(self, device: str, *, non_blocking: bool) -> tuple[bool, str, bool]:
            return self.pinned, device, non_blocking

    assert accelerator.moved(Noted(), "cuda") == (True, "cuda", True)
    here = torch.ones(2)
    assert accelerator.moved(here, "cpu") is here
    assert precision.autocast("cpu:0").device == "cpu"


def test_batches_and_networks_go_where_the_run_takes_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[tuple[str, str]] = []
    real = nn.Module.to

    def to(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        moves.append((type(self).__name__, str(args[0])))
        return real(self, "cpu", **kwargs)

    def moved(tensor: torch.Tensor, device: str) -> torch.Tensor:
        moves.append(("Tensor", device))
        return tensor

    monkeypatch.setattr(nn.Module, "to", to)
    monkeypatch.setattr(accelerator, "moved", moved)
    train.train(tiny_lessons(), PLAN, tmp_path, start=Generator(SMALL), place=Place("cuda"))
    assert moves[:2] == [("Generator", "cuda"), ("Discriminator", "cuda")]
    assert moves[2:] == [("Tensor", "cuda")] * len(batches.Batch.__slots__) * PLAN.steps


@pytest.mark.filterwarnings("default")  # the tracer looks at gradients of what is no leaf
def test_compiled_networks_learn_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By tracing alone, which needs no compiler. R1 takes a second gradient."""
    traced = partialmethod(nn.Module.compile, backend="aot_eager")
    monkeypatch.setattr(nn.Module, "compile", traced)
    learned = []
    for compiled in (False, True):
        torch.manual_seed(0)
        place, out = Place("cpu", compiled), tmp_path / str(compiled)
        state = train.train(tiny_lessons(), PLAN, out, start=Generator(SMALL), place=place)
        assert (state.critic._compiled_call_impl is not None) == compiled
        learned.append(state.average.state_dict() | state.critic.state_dict())
    assert learned[0].keys() == learned[1].keys()
    for name, value in learned[0].items():
        assert torch.allclose(value.float(), learned[1][name].float(), atol=5e-3), name
