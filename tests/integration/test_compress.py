"""Pruning, unfolding and the student's lessons, on small fresh generators."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.unit.test_gan_networks import SMALL, batch, tiny_lessons
from worker.compress import student
from worker.compress.prune import prune
from worker.gan import batches, folding, integers, losses, quantize
from worker.gan.networks import VENDOR_CODE, Generator, Widths, condition
from worker.gan.weights import Shipped

SMALLER = Widths(hidden=32, at4=32, at8=32, at16=32, at32=32, detail=32)


@pytest.fixture(scope="module")
def plain() -> Generator:
    torch.manual_seed(3)
    made = Generator(SMALL).train().requires_grad_(False)
    for number in range(4):
        made(condition(**batch(16, number)))
    return folding.fold(made)


def test_pruning_to_the_same_width_changes_nothing(plain: Generator) -> None:
    conditions = condition(**batch(8))
    assert torch.equal(prune(plain, SMALL, conditions)(conditions), plain(conditions))


def test_pruning_drops_the_channels_that_say_nothing(plain: Generator) -> None:
    silent = Generator(SMALL, normed=False).eval().requires_grad_(False)
    silent.load_state_dict(plain.state_dict())
    for layer, cells in ((silent.map[0], 1), (silent.seed[0], 16), (silent.at4[0], 1)):
        gone = torch.arange(0, len(layer.weight) // cells, 2)
        rows = (gone[:, None] * cells + torch.arange(cells)).flatten()
        layer.weight[rows], layer.bias[rows] = 0, -1
    conditions = condition(**batch(8))
    small = prune(silent, SMALLER, conditions)
    assert torch.allclose(small(conditions), silent(conditions), atol=1e-5)
    assert sum(p.numel() for p in small.parameters()) < 0.6 * sum(
        p.numel() for p in silent.parameters()
    )


def test_a_generator_with_norms_is_not_pruned() -> None:
    with pytest.raises(TypeError, match="folded"):
        prune(Generator(SMALL).eval(), SMALLER, condition(**batch(4)))


def test_unfolding_undoes_folding(plain: Generator) -> None:
    conditions = condition(**batch(8))
    normed = folding.unfold(plain, conditions)
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in normed.modules())
    assert torch.allclose(normed(conditions), plain(conditions), atol=1e-4)
    assert torch.allclose(folding.fold(normed)(conditions), plain(conditions), atol=1e-4)


@pytest.mark.parametrize("exact", [True, False])
def test_a_share_of_the_lessons_is_drawn_by_the_teacher(
    plain: Generator, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """exact: whether the processor has int8."""
    possible = exact and integers.supported()
    monkeypatch.setattr(integers, "supported", lambda: possible)
    given, plan = tiny_lessons(), batches.Plan(batch=20)
    ranges = quantize.observe(plain, [condition(**batch(8))])
    free = torch.nn.functional.normalize(torch.randn(5, 384), dim=1)
    lesson = student.lesson(Shipped(plain, ranges, ""), free)
    batch_, again, usual = (f(given, plan, 3) for f in (lesson, lesson, batches.draw))
    assert torch.equal(batch_.pictures, again.pictures) and torch.equal(batch_.text, again.text)
    taught = round(student.TAUGHT * 20)
    assert torch.equal(batch_.pictures[taught:], usual.pictures[taught:])
    assert (batch_.vendor[:taught] < student.STYLES).all()
    assert (batch_.concept[:taught] == losses.UNNAMED).all()
    assert torch.equal(batch_.concept[taught:], usual.concept[taught:])
    toned = replace(given, pictures=replace(given.pictures, vendor=torch.full((6,), 2)))
    with_tones = student.lesson(Shipped(plain, ranges, ""), free, toned)(given, plan, 3)
    last = round(student.TONED * 20)
    assert (with_tones.vendor[-last:] == 2).all()
    assert (with_tones.concept[-last:] >= 2).all()  # counted on from those without a tone
    assert torch.equal(with_tones.pictures[:-last], batch_.pictures[:-last])
    near: Tensor = batch_.text[:taught] @ free.T
    assert near.amax(1).min() > 0.97 and VENDOR_CODE == 16


def test_a_student_that_goes_on_learns_from_pictures_alone(
    tmp_path: Path, plain: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges = quantize.observe(plain, [condition(**batch(8))])
    asked: list[object] = []
    real = student.lesson

    def noted(teacher: Shipped | None, *rest: Tensor) -> batches.Lesson:
        asked.append(teacher)
        return real(teacher, *rest)

    monkeypatch.setattr(student, "lesson", noted)
    teacher, plan = Shipped(plain, ranges, ""), batches.Plan(steps=1, batch=8, critic_width=16)
    for number, known in enumerate((None, teacher)):
        out = tmp_path / str(number)
        student.teach(tiny_lessons(), teacher, plan, out, widths=SMALLER, student=known)
    assert asked == [teacher, None]
    given, plan = tiny_lessons(), batches.Plan(batch=20)
    free = torch.nn.functional.normalize(torch.randn(5, 384), dim=1)
    alone, usual = (f(given, plan, 3) for f in (real(None, free), batches.draw))
    assert all(torch.equal(value, usual.tensors()[k]) for k, value in alone.tensors().items())
