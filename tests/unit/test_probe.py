"""`models probe` and `models pull`, on this machine, without a farm."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from promptmill.cli import connection, run
from promptmill.jobs import Item
from worker import probe
from worker.gan import integers
from worker.generators import gan, quantization
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


@pytest.fixture
def empty_farm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A farm that knows no models."""
    farm = SimpleNamespace(models=list)
    monkeypatch.setattr(connection, "farm", lambda: nullcontext(farm))


def test_what_the_settings_come_to_here_and_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integers, "supported", lambda: True)
    assert run(["models", "resolve", "emoji-gan", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["device"], told["quantization"]) == ("cpu", gan.AUTO)
    assert "VNNI" in told["why"] and told["why"].startswith("auto: ")
    monkeypatch.setattr(integers, "supported", lambda: False)
    assert run(["models", "resolve", "emoji-gan"]) == 0
    assert "emoji-gan with student on cpu (this processor has no VNNI" in capsys.readouterr().out
    monkeypatch.setenv("PROMPTMILL_QUANTIZATION", "none")
    assert run(["models", "resolve", "emoji-gan"]) == 0
    assert "emoji-gan with none on cpu (as it is set)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("QUANTIZATION", "fp8", "emoji-gan has no quantization 'fp8' (it has auto, int8"),
        ("QUANTIZATION", "bf16", "PROMPTMILL_QUANTIZATION=bf16 is refused: it is a GPU's form"),
        ("DEVICE", "cuda", "PROMPTMILL_DEVICE='cuda': torch sees no GPU here"),
    ],
)
def test_an_unusable_choice_is_refused_with_the_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, empty_farm: None,
    setting: str, value: str, reason: str,
) -> None:  # fmt: skip
    monkeypatch.setenv(f"PROMPTMILL_{setting}", value)
    assert run(["models", "resolve", "emoji-gan"]) == 1
    assert reason in capsys.readouterr().err
    assert run(["models"]) == 0
    assert f"here: {reason}" in capsys.readouterr().out


def test_what_runs_here_is_told_without_a_farm(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTMILL_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("PROMPTMILL_MODEL", "stub")
    assert run(["models"]) == 1
    told = capsys.readouterr()
    assert told.out == "here: stub with none on cpu (a pattern has no weights)\n"
    assert "no farm answers at http://127.0.0.1:9" in told.err
    assert run(["models", "--json"]) == 1
    assert capsys.readouterr().out == ""


def test_the_list_of_models_ends_with_what_runs_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, empty_farm: None
) -> None:
    monkeypatch.setenv("PROMPTMILL_MODEL", "stub")
    assert run(["models"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "here: stub with none on cpu (a pattern has no weights)"


@pytest.mark.parametrize(
    ("name", "device", "plan", "reason"),
    [
        ("auto", quantization.Device("cpu"), "none", "auto: on a CPU, float32"),
        (
            "auto",
            quantization.Device("cuda", (9, 0)),
            "bf16",
            "auto: this GPU computes bfloat16 at",
        ),
        (
            "auto",
            quantization.Device("cuda", (7, 5)),
            "none",
            "auto: this GPU computes bfloat16 in",
        ),
        ("bf16", quantization.Device("cpu"), "bf16", "as it is set"),
        (
            "bf16",
            quantization.Device("cpu", bf16=False),
            "bf16",
            "as it is set, but this processor computes bfloat16 in software: none is",
        ),
    ],
)
def test_why_a_checkpoint_runs_in_the_format_it_does(
    name: str, device: quantization.Device, plan: str, reason: str
) -> None:
    model = quantization.Model("diffusers")
    assert quantization.plan(name, device, model).name == plan
    assert quantization.why(name, device).startswith(reason)
