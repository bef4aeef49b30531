"""The judge: learns what it is shown, knows it from another hand, and is read back the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from worker import tiny
from worker.gan import agreement, judge
from worker.gan.disguise import disguise
from worker.gan.judge import Judge
from worker.gan.jurors import Jury
from worker.gan.networks import TEXT


def shapes(vendor: int) -> torch.Tensor:
    """Pictures uint8 [4, 3, 32, 32], one of each shape."""
    drawn = [tiny.drawn(shape, (40, 70, 220), vendor) for shape in tiny.SHAPES]
    return torch.stack(list(map(torch.from_numpy, drawn)))[:, :, ::2, ::2]


@pytest.fixture(scope="module")
def taught() -> Judge:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    names = torch.nn.functional.normalize(torch.randn(len(tiny.SHAPES), TEXT), dim=1)
    made = Judge(names, widths=(16, 32, 64))
    jury = Jury(shapes(0), torch.arange(len(names)), torch.ones(len(names)))
    judge.train(made, made.names, jury, steps=120, batch=16)
    return made


def test_it_knows_another_hand_by_the_name_it_learned(taught: Judge) -> None:
    rank = judge.ranks(judge.vectors(taught, shapes(1)), taught.named, torch.arange(4))
    assert (rank == 0).sum() >= 3, rank  # chance: one
    assert torch.allclose(taught.named.norm(dim=1), torch.ones(4))


def test_it_is_read_back_as_it_was_saved(taught: Judge, tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = Judge(torch.randn(5, TEXT))
    judge.save(made.eval(), tmp_path / judge.FILE)
    read, seen = judge.load(tmp_path), shapes(2)
    assert torch.allclose(judge.vectors(read, seen), judge.vectors(made, seen), atol=1e-5)
    assert judge.features(read, seen).shape == (4, judge.WIDTHS[-1])


def test_a_disguise_is_another_picture_and_the_seed_decides_which() -> None:
    pictures = shapes(0).float().div(255).repeat(16, 1, 1, 1)
    one, again, other = (
        disguise(pictures, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert one.shape == pictures.shape and one.amin() >= 0 and one.amax() <= 1
    same = (one == pictures).flatten(1).all(1).float().mean().item()
    assert 0 < same < 0.4


def test_a_set_has_no_frechet_distance_from_itself() -> None:
    torch.manual_seed(0)
    features = torch.randn(200, 8)
    assert agreement.frechet(features, features) == pytest.approx(0, abs=1e-6)
    assert agreement.frechet(features, features + 1) == pytest.approx(8, rel=1e-3)
