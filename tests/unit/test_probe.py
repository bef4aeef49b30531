"""`models probe` and `models pull`, on this machine, without a farm."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from promptmill.cli import run
from promptmill.jobs import Item
from worker import probe
from worker.generators.base import OutOfMemory, Pixels
from worker.generators.stub import Stub


def test_every_batch_shape_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "probe", "stub", "--json"]) == 0
    shapes = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [shape["batch"] for shape in shapes] == [1, 2, 4, 8, 16, 32]
    assert all(shape["images_per_second"] > 0 for shape in shapes)
    assert all(shape["memory_bytes"] > 1e6 for shape in shapes)


def test_a_shape_that_does_not_fit_is_a_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(Stub):
        def generate(self, items: Sequence[Item]) -> Pixels:
            if len(items) > 4:
                raise OutOfMemory
            return super().generate(items)

    monkeypatch.setattr(probe.registry, "create", lambda name, options: Small())
    fitting = [
        shape.batch
        for shape in probe.probe("stub", device="cpu", quantization="none")
        if shape.images_per_second
    ]
    assert fitting == [1, 2, 4]


def test_pull_loads_what_a_worker_would(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "pull", "stub"]) == 0
    assert "stub is here, fingerprint stub-1" in capsys.readouterr().out
    assert run(["models", "pull", "nope"]) == 1
    assert "it has emoji-gan, stub" in capsys.readouterr().err


def test_a_model_is_described_as_its_worker_would() -> None:
    model = probe.describe("stub", device="cpu", quantization="none")
    assert (model.name, model.caps, model.fingerprint) == ("stub", Stub.caps, "")


def test_each_quantization_is_measured_or_refused_with_a_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["models", "probe", "stub", "--each", "--json"]) == 0
    found = {
        line["quantization"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())
    }
    assert list(found) == ["none", "bf16", "int8", "fp8", "nf4", "gguf"]
    assert found["none"]["images_per_second"] > 0
