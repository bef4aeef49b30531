"""The objective: each game by hand-made logits, the head that names concepts, and what the weights
weigh."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.unit.test_gan_networks import SMALL, batch, tiny_lessons
from worker.gan import batches, losses, train
from worker.gan.checkpoint import Checkpoint
from worker.gan.journal import LINES
from worker.gan.networks import Discriminator, Generator

PLAN = batches.Plan(steps=40, adversarial=0, batch=4, critic_width=16, rate=6e-3, log_every=1)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_reconstruction_is_zero_at_the_truth_and_prefers_the_sharper() -> None:
    real = torch.zeros(1, 3, 64, 64)
    real[..., 32:] = 1
    blurred = torch.full_like(real, 0.5)
    near = real * 0.9
    assert losses.reconstruction(real, real) == 0
    assert losses.reconstruction(near, real) < losses.reconstruction(blurred, real)


def logits(*values: float) -> Tensor:
    return torch.tensor(values, requires_grad=True)


def test_the_minimax_game_is_that_of_the_equation() -> None:
    sure = math.log(3)  # of which the sigmoid is 3/4
    found = losses.minimax_critic_loss(logits(sure, 0.0), logits(-sure, 0.0), logits(sure, sure))
    value = (math.log(0.75) + math.log(0.5)) / 2  # E log D(real), here E log(1 - D(made)) as well
    assert found.item() == pytest.approx(-2 * value - 0.5 * math.log(0.25))
    fooled = losses.minimax_generator_loss(logits(9.0), logits(sure))
    assert fooled.item() == pytest.approx(-math.log(0.75))


def test_the_pairing_knows_differences_alone() -> None:
    given = logits(2.0), logits(2.0 + math.log(3)), logits(2.0)
    found = losses.relativistic_critic_loss(*given)
    assert found.item() == pytest.approx(math.log(4) + 0.5 * math.log(2))
    higher = losses.relativistic_critic_loss(*(one + 5 for one in given))
    assert higher.item() == pytest.approx(found.item())
    fooled = losses.relativistic_generator_loss(*given[:2])
    assert fooled.item() == pytest.approx(math.log(1 + 1 / 3))


@pytest.mark.parametrize("game", losses.GAMES.values(), ids=losses.GAMES)
def test_the_players_pull_apart(game: losses.Game) -> None:
    truth, lie, wrong = logits(0.1), logits(-0.2), logits(0.3)
    game.critic(truth, lie, wrong).backward()
    assert truth.grad < 0 < lie.grad and wrong.grad > 0
    truth, lie = logits(20.0), logits(-20.0)
    game.generator(truth.detach(), lie).backward()
    assert lie.grad.item() == pytest.approx(-1)  # the critic is sure, and the pull is whole


def test_naming_is_cross_entropy_in_which_unnamed_rows_count_nothing() -> None:
    said = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]], requires_grad=True)
    right, half = -math.log(0.75), -math.log(0.5)
    assert losses.naming(said, torch.tensor([1, 0])).item() == pytest.approx((right + half) / 2)
    one = losses.naming(said, torch.tensor([1, losses.UNNAMED]))
    assert one.item() == pytest.approx(right / 2)  # so that shares of a batch add up
    one.backward()
    assert said.grad[1].abs().max() == 0 and said.grad[0, 1] < 0
    assert losses.naming(said, torch.tensor([losses.UNNAMED] * 2)).item() == 0


def test_the_head_names_by_the_picture_alone() -> None:
    given = batch(4)
    critic, pixels = Discriminator(16, 3), torch.rand(4, 3, 64, 64, requires_grad=True)
    names = critic(pixels, given["text"], given["vendor"]).names
    other = critic(pixels, given["text"].roll(1, 0), given["vendor"].roll(1, 0)).names
    assert torch.equal(names, other)
    losses.naming(names, torch.tensor([0, 1, 2, 0])).backward()
    assert pixels.grad.abs().max() > 0 and critic.trunk[0].weight.grad is not None
    assert critic.embed.weight.grad is None


def test_gradient_penalty_of_a_known_slope() -> None:
    given = batch(2)
    steep = losses.gradient_penalty(
        lambda pixels, text, vendor: 3 * pixels.sum((1, 2, 3)),
        torch.rand(2, 3, 8, 8),
        text=given["text"],
        vendor=given["vendor"],
    )
    assert steep.item() == pytest.approx(0.5 * 9 * 3 * 8 * 8)


def told(step: int = 1, **settings: float) -> dict[str, float]:
    """What a step says of the objective under these settings."""
    plan, names = replace(PLAN, **settings), 2 if settings.get("text_weight") else 0
    state = Checkpoint.fresh(
        1, rate=1e-3, critic_rate=0.0, widths=SMALL, critic_width=16, names=names
    )
    state.step = step
    return train.compete(state, batches.draw(tiny_lessons(), plan, 0), plan)


def test_each_weight_weighs_its_own() -> None:
    plain = told()
    heavy = told(critic_weight=3.0, generator_weight=2.0)
    assert heavy["critic"] == pytest.approx(3 * plain["critic"])
    assert heavy["fooled"] == pytest.approx(2 * plain["fooled"])
    assert "names_real" not in plain
    headed = told(text_weight=0.5)
    assert headed["critic"] == pytest.approx(plain["critic"] + 0.5 * headed["names_real"], rel=1e-2)
    assert headed["names_made"] == pytest.approx(math.log(2), abs=0.2)


def test_the_generator_is_pulled_to_what_is_named_rightly() -> None:
    pulls = []
    for weight in (0.1, 10.0):
        plan = replace(PLAN, text_weight=weight, generator_weight=0.0, anchor=0.0, adversarial=-400)
        state = Checkpoint.fresh(
            1, rate=1e-3, critic_rate=0.0, widths=SMALL, critic_width=16, names=2
        )
        train.compete(state, batches.draw(tiny_lessons(), plan, 0), plan)
        pulls.append(state.generator.pixels.weight.grad.norm().item())
    assert pulls[0] > 0 and pulls[1] == pytest.approx(100 * pulls[0], rel=0.05)


@pytest.mark.parametrize("objective", losses.GAMES)
def test_a_run_with_the_head_learns_by_either_game(tmp_path: Path, objective: str) -> None:
    torch.manual_seed(0)
    plan = replace(PLAN, objective=objective, text_weight=1.0, critic_rate=3e-3)
    train.train(tiny_lessons(), plan, tmp_path, start=Generator(SMALL))
    lines = [json.loads(line) for line in (tmp_path / LINES).read_text().splitlines()]
    steps = [line for line in lines if "l1" in line]
    first, last = (
        {k: sum(s[k] for s in some) / 5 for k in steps[0]} for some in (steps[:5], steps[-5:])
    )
    assert last["l1"] < first["l1"] and last["names_real"] < 0.8 * first["names_real"]
    assert all(math.isfinite(value) for step in steps for value in step.values())
    assert last["fooled"] < 20  # the critic has not run away
