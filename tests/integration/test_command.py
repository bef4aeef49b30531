"""What training and compression cannot do they say in one line."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from promptmill import errors
from worker import command, tiny
from worker.gan import evaluate, measure
from worker.generators import gan

ROOT = Path(__file__).parents[2]
NOWHERE, STUDENT = "/nowhere", str(gan.WEIGHTS / gan.STUDENT)
REFUSED = {
    "gan.evaluate --judge /nowhere": "no judge in /nowhere: make one with python -m worker.gan",
    "gan.evaluate --weights /nowhere": "/nowhere/encoder.safetensors cannot be read",
    "gan.evaluate --pictures-only --fifty /nowhere/f.png": "/nowhere/f.png: No such file",
    "gan.export --run /nowhere": "no checkpoint of a run in /nowhere: make one with python -m",
    "gan.judge --data /nowhere": "no training set in /nowhere: run python -m worker.gan.data",
    "gan.scorer --data /nowhere": "no training set in /nowhere",
    "gan.distil --start /nowhere": "No such file or directory: /nowhere",
    "gan.measure --encoder /nowhere": "/nowhere/encoder.safetensors cannot be read",
    "expand.train --data /nowhere": "no language model: promptmill models pull smollm2",
    "expand.measure --data /nowhere": "no language model: promptmill models pull smollm2",
    "compress.int8 --data /nowhere --source x --out x": "no training set in /nowhere",
    "compress.graph --source /nowhere --out OUT": "/nowhere/generator.json cannot be read",
    "compress.prune --widths 384 256 160 64 32 32": "at8 of 160: the source has 128",
    "compress.prune --widths 0 256 128 64 32 32": "hidden of 0: widths are multiples of 32",
    "compress.prune --widths 384 256 128 64 32 50": "detail of 50: widths are multiples of 32",
}  # fmt: skip


def refused(run: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints that exits with 1."""
    with pytest.raises(SystemExit) as ended:
        command.run(run)
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith("promptmill: ") and told.count("\n") == 1
    return told


def fails(problem: BaseException) -> Callable[[], object]:
    def run() -> None:
        raise problem

    return run


def test_a_refusal_is_one_line_and_a_fault_of_the_code_stays_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert refused(fails(errors.Error("no\nroom")), capsys) == "promptmill: no room\n"
    full = OSError(28, "No space left on device", "/data")
    assert refused(fails(full), capsys) == "promptmill: /data: No space left on device\n"
    with pytest.raises(ZeroDivisionError):
        command.run(fails(ZeroDivisionError()))
    with pytest.raises(SystemExit) as ended:
        command.run(fails(KeyboardInterrupt()))
    assert ended.value.code == command.INTERRUPTED


@pytest.mark.parametrize("line", REFUSED)
def test_a_simple_mistake_is_named_with_its_remedy(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *given = line.replace("OUT", str(tmp_path)).split()
    if name == "gan.export":  # which reads a training set first
        tiny.build(tmp_path)
        given += ["--data", str(tmp_path)]
    if name == "compress.prune":
        given += ["--source", STUDENT, "--out", NOWHERE]
    module = importlib.import_module(f"worker.{name}")
    assert REFUSED[line] in refused(lambda: module.main(given), capsys)


def test_every_command_of_training_ends_so() -> None:
    texts = {str(p.relative_to(ROOT)): p.read_text() for p in (ROOT / "worker").rglob("*.py")}
    commands = {path for path, text in texts.items() if '__name__ == "__main__"' in text}
    assert len(commands) > 10
    assert [path for path in sorted(commands) if "    command.run(main)\n" not in texts[path]] == []


def test_pictures_need_neither_a_judge_nor_a_training_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And they are there before the rest is asked for."""
    asked = ["--network", STUDENT, "--judge", NOWHERE, "--data", NOWHERE]
    files = [tmp_path / f"{name}.png" for name in ("fifty", "tones")]
    asked += ["--fifty", str(files[0]), "--tones", str(files[1])]
    evaluate.main([*asked, "--pictures-only"])
    shipped = [ROOT / "docs" / "models" / f"emoji-gan-{file.name}" for file in files]
    for file, known in zip(files, shipped, strict=True):
        apart = np.abs(pixels(file) - pixels(known))
        assert apart.mean() < 1, file.name  # not the same bytes on every processor
        file.unlink()
    refused(lambda: evaluate.main(asked), capsys)
    assert all(file.exists() for file in files)


def pixels(file: Path) -> NDArray[np.int16]:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"), np.int16)


def test_the_student_is_measured_with_the_encoder_of_its_teacher(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "ROUNDS", 1)
    measure.main(["--weights", STUDENT])
    assert "psnr_int8_to_float" in capsys.readouterr().out
