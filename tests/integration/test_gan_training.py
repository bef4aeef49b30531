"""A run that is stopped and resumed, and one that two processes share, are the run that one
process makes in one go."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from promptmill import errors
from tests.unit.test_gan_networks import SMALL, tiny_lessons
from worker.gan import batches, checkpoint, lexicon, parallel, train
from worker.gan.journal import BOARD, LINES, Journal
from worker.gan.networks import Generator

PLAN = batches.Plan(
    steps=12, adversarial=6, batch=4, critic_width=16, penalty_every=4, save_every=5, log_every=1
)
HEADED = replace(PLAN, objective="minimax", text_weight=0.5, generator_weight=2.0)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def start() -> Generator:
    torch.manual_seed(0)
    return Generator(SMALL)


def run(out: Path, plan: batches.Plan = PLAN, **more: object) -> dict[str, torch.Tensor]:
    train.train(tiny_lessons(), plan, out, start=start(), **more)  # type: ignore[arg-type]
    return load_file(out / checkpoint.TENSORS)


def objective(out: Path) -> list[dict[str, float]]:
    """The lines of single steps, without the clock."""
    lines = [json.loads(line) for line in (out / LINES).read_text().splitlines()]
    timed = [line for line in lines if line.pop("seconds_per_step", None) is not None]
    assert [line["step"] for line in timed] == list(range(1, PLAN.steps + 1))
    return timed


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    out = tmp_path_factory.mktemp("whole")
    return out, run(out)


@pytest.fixture(scope="module")
def headed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """The run whose critic names concepts, too."""
    out = tmp_path_factory.mktemp("headed")
    return out, run(out, HEADED)


def require_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("at", [3, 8])
def test_a_run_stopped_at_any_step_ends_as_one_in_one_go(
    tmp_path: Path, whole: tuple[Path, dict[str, torch.Tensor]], at: int
) -> None:
    steps = iter(range(1, 100))
    run(tmp_path, stop=lambda: next(steps) == at)
    assert checkpoint.step_of(tmp_path) == at
    require_same(run(tmp_path), whole[1])
    assert objective(tmp_path) == objective(whole[0])


def test_a_run_with_the_head_ends_as_one_in_one_go(
    tmp_path: Path, headed: tuple[Path, dict[str, torch.Tensor]]
) -> None:
    assert "critic.names.weight" in headed[1]
    steps = iter(range(1, 100))
    run(tmp_path, HEADED, stop=lambda: next(steps) == 8)
    require_same(run(tmp_path, HEADED), headed[1])
    assert objective(tmp_path) == objective(headed[0])


def test_a_run_that_died_between_two_saves_ends_as_one_in_one_go(
    tmp_path: Path, whole: tuple[Path, dict[str, torch.Tensor]]
) -> None:
    def deadly(given: lexicon.Lessons, plan: batches.Plan, step: int) -> batches.Batch:
        if step == 8:
            raise KeyboardInterrupt
        return batches.draw(given, plan, step)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, lesson=deadly)
    assert checkpoint.step_of(tmp_path) == 5
    with (tmp_path / LINES).open("a") as file:
        file.write('{"step": 8, "l')
    require_same(run(tmp_path), whole[1])
    assert objective(tmp_path) == objective(whole[0])


def test_the_step_is_that_of_the_tensors_whatever_the_facts_say(
    tmp_path: Path, whole: tuple[Path, dict[str, torch.Tensor]]
) -> None:
    steps = iter(range(1, 100))
    run(tmp_path, stop=lambda: next(steps) == 7)
    (tmp_path / checkpoint.FACTS).write_text('{"step": 5}')  # died between the two files
    require_same(run(tmp_path), whole[1])


def test_signals_ask_for_a_stop_after_the_step() -> None:
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        stop = train.stopped_by_signal()
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("one_in", ["whole", "headed"])
def test_two_processes_have_the_objective_of_one(
    tmp_path: Path, one_in: str, request: pytest.FixtureRequest
) -> None:
    alone = request.getfixturevalue(one_in)[0]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "tests.integration.test_gan_training", str(tmp_path), one_in,
    ]  # fmt: skip
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        check=False, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for one, two in zip(objective(alone), objective(tmp_path), strict=True):
        assert one["l1"] == pytest.approx(two["l1"], rel=1e-3)
        if one["step"] <= EXACT:
            assert one == pytest.approx(two, rel=2e-3)


EXACT = 9  # later the players have carried roundings apart


def test_a_batch_that_cannot_be_shared_equally_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parallel.rows(5) == slice(0, 5)
    monkeypatch.setattr(parallel, "size", lambda: 2)
    with pytest.raises(errors.Error, match="a batch of 5 cannot be shared by 2"):
        parallel.rows(5)


def test_a_shared_norm_with_one_process_is_torchs_own() -> None:
    torch.manual_seed(0)
    given = torch.randn(4, 8, 3, 3) * 2 + 1
    plain = torch.nn.BatchNorm2d(8)
    shared = torch.nn.BatchNorm2d(8)
    for norm in (plain, shared):
        torch.nn.init.uniform_(norm.weight, generator=torch.Generator().manual_seed(1))
    shared.__class__ = parallel.SharedNorm
    for norm in (plain, shared):
        norm(given).square().sum().backward()
    assert torch.allclose(plain(given), shared(given), atol=1e-5)
    for name, value in plain.state_dict().items():
        assert torch.allclose(value, shared.state_dict()[name], atol=1e-5), name


def test_the_log_has_lines_scalars_and_samples(
    whole: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(whole[0] / BOARD)).Reload()
    assert [event.step for event in board.Scalars("l1")] == list(range(1, PLAN.steps + 1))
    assert [event.step for event in board.Images("samples")] == [5, 10, 12]
    assert {"critic", "fooled", "psnr", "found_noto"} <= set(board.Tags()["scalars"])


def test_the_log_does_without_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with Journal(tmp_path, step=0, steps=2) as journal:
        journal.scalars(1, {"l1": 0.5})
        journal.at(1)
    assert capsys.readouterr().out == '{"step": 1, "l1": 0.5}\n'
    assert not (tmp_path / BOARD).exists()


def test_a_terminal_gets_a_bar_beside_the_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with Journal(tmp_path, step=1, steps=3) as journal:
        journal.scalars(2, {"l1": 0.5})
        journal.at(3)
    shown = capsys.readouterr().out
    assert '{"step": 2, "l1": 0.5}' in shown and "3/3" in shown
    assert (tmp_path / LINES).read_text() == '{"step": 2, "l1": 0.5}\n'


if __name__ == "__main__":
    torch.set_num_threads(1)
    with parallel.joined():
        ours = parallel.rows(8)
        if parallel.roll(torch.arange(8)[ours]).tolist() != torch.arange(8).roll(1)[ours].tolist():
            sys.exit("rows are not rolled across processes")
        run(Path(sys.argv[1]), HEADED if sys.argv[2] == "headed" else PLAN)
