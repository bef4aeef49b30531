"""How alike pictures look: nothing apart from itself, most apart from its opposite, and only the
picture that is made is pulled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.unit.test_gan_networks import SMALL, tiny_lessons
from worker.gan import batches, lite, losses, resemblance, train
from worker.gan.checkpoint import Checkpoint
from worker.gan.resemblance import LOOKS, Resemblance


def test_of_opposites_every_look_is_two_lengths_apart() -> None:
    plain = Resemblance(nn.Sequential(*(nn.Identity() for _ in range(LOOKS[-1]))))
    white, black = torch.ones(2, 3, 64, 64), torch.zeros(2, 3, 64, 64)
    assert plain(white, black).item() == pytest.approx(4 * len(LOOKS))
    assert plain(white, 0.75 * white).item() == pytest.approx(0, abs=1e-6)  # as long does not count


def test_only_what_is_made_is_pulled() -> None:
    torch.manual_seed(0)
    network = lite.network(lite.LITE1.stages)
    alike = Resemblance(network)
    made, real = (torch.rand(2, 3, 64, 64, requires_grad=True) for _ in range(2))
    apart = alike(made, real)
    apart.backward()  # type: ignore[no-untyped-call]
    assert apart.item() > 0 and made.grad is not None and made.grad.abs().amax() > 0
    assert real.grad is None and all(one.grad is None for one in network.parameters())
    assert not any(one.training for one in network.modules())
    assert alike(real, real).item() == 0


def test_it_looks_at_cells_of_4_8_and_16_pixels() -> None:
    maps = torch.rand(1, 3, 64, 64)
    sides = []
    for step in list(lite.network(lite.LITE1.stages).eval())[: LOOKS[-1]]:
        maps = step(maps)
        sides.append(maps.shape[-1])
    assert [sides[look - 1] for look in LOOKS] == [16, 8, 4]
    assert [sides[look] for look in LOOKS[:-1]] == [8, 4]  # the last of each size


def test_it_counts_beside_the_reconstruction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = lite.network(lite.LITE1.stages)
    monkeypatch.setattr(lite, "taught", lambda folder, kind: network)
    distance = resemblance.beside_reconstruction(tmp_path)
    made, real = torch.rand(2, 2, 3, 64, 64)
    beside = distance(made, real) - losses.reconstruction(made, real)
    looks = resemblance.WEIGHT * Resemblance(network)(made, real)
    assert beside.item() == pytest.approx(looks.item(), rel=1e-4) and looks.item() > 0


def test_a_run_is_pulled_by_it_with_the_critic_and_without(tmp_path: Path) -> None:
    plan = batches.Plan(steps=4, adversarial=2, batch=4, critic_width=16)
    start = Checkpoint.fresh(1, rate=1e-3, critic_rate=1e-3, widths=SMALL, critic_width=16)
    made: dict[float, torch.Tensor] = {}
    for steps in (2, 4):
        for weight in (1.0, 2.0):
            state = train.train(
                tiny_lessons(),
                replace(plan, steps=steps),
                tmp_path / f"{steps}-{weight}",
                start=start.generator,
                distance=lambda one, other, w=weight: (one - other).pow(2).mean() * w,  # type: ignore[misc]
            )
            made[weight] = state.generator.pixels.weight
        assert not torch.equal(made[1.0], made[2.0])
