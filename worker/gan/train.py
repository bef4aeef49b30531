"""Trains the GAN: `python -m worker.gan.train --data data/emoji --out data/run`. First
plain regression, since a caption has one picture and a GAN need not search for it; then
the adversarial objective sharpens it. Stop it anywhere; the same command goes on."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from worker.gan import data, evaluate, losses, views
from worker.gan.checkpoint import Checkpoint
from worker.gan.networks import NOISE, TEXT, condition


@dataclass(frozen=True, slots=True)
class Plan:
    """The run's settings. Steps are absolute, so that a resumed run may get more."""

    steps: int = 20_000
    adversarial: int = 12_000  # first step with the critic
    batch: int = 32
    rate: float = 1.5e-3
    critic_rate: float = 3e-4
    anchor: float = 10.0  # weight of the reconstruction beside the adversarial loss
    penalty: float = 1.0  # R1's gamma
    penalty_every: int = 16
    jitter: float = 0.25  # text noise, in units of a component's own spread
    decay: float = 0.998
    seed: int = 1
    save_every: int = 500


@dataclass(frozen=True, slots=True)
class Batch:
    """pictures [B, 3, 64, 64] in [0, 1], text [B, 384], vendor [B], noise [B, 16], dice
    [B, 4] uniform in [0, 1) for the augmentation."""

    pictures: Tensor
    text: Tensor
    vendor: Tensor
    noise: Tensor
    dice: Tensor


def draw(dataset: data.Dataset, plan: Plan, step: int) -> Batch:
    """The batch of a step: a function of the plan's seed and the step alone. Half of the
    captions are the label in one of its templates, half any caption of the concept."""
    chance = torch.Generator().manual_seed(plan.seed * 1_000_003 + step)
    rows = torch.multinomial(dataset.weight, plan.batch, replacement=True, generator=chance)
    first, count = dataset.spans[dataset.concept[rows]].unbind(1)
    reach = torch.where(torch.rand(plan.batch, generator=chance) < 0.5, count.clamp(max=8), count)
    pick = first + (torch.rand(plan.batch, generator=chance) * reach).long()
    shake = torch.randn(plan.batch, TEXT, generator=chance) * plan.jitter / TEXT**0.5
    noise = torch.randn(plan.batch, NOISE, generator=chance)
    return Batch(
        views.view(dataset.pictures[rows].float() / 255, noise),
        torch.nn.functional.normalize(dataset.text[pick] + shake, dim=1),
        dataset.vendor[rows],
        noise,
        torch.rand(plan.batch, 4, generator=chance),
    )


def rate_at(plan: Plan, step: int) -> float:
    """Warm-up over 200 steps, a plateau, a linear fall over the last fifth; under the
    critic two fifths of it."""
    rise = min(1.0, (step + 1) / 200)
    fall = min(1.0, max(0.02, (plan.steps - step) / (0.2 * plan.steps)))
    return plan.rate * min(rise, fall) * (0.4 if step >= plan.adversarial else 1.0)


def regress(state: Checkpoint, batch: Batch) -> dict[str, float]:
    """One step of regression."""
    made = _made(state, batch)
    loss = losses.reconstruction(made, batch.pictures)
    _descend(state.generator_optimizer, loss)
    return {"l1": loss.item()}


def compete(state: Checkpoint, batch: Batch, plan: Plan) -> dict[str, float]:
    """One step of both players; the picture made once serves both."""
    made = _made(state, batch)
    known = {"text": batch.text, "vendor": batch.vendor}
    chance, shift, light = batch.dice[:, 0], batch.dice[:, 1:3] * 2 - 1, batch.dice[:, 3] * 2 - 1

    def critic(pixels: Tensor, text: Tensor, vendor: Tensor) -> Tensor:
        seen = views.augment(pixels, chance=chance, shift=shift, light=light)
        with torch.autocast("cpu", torch.bfloat16):
            logit: Tensor = state.critic(seen, text, vendor)
        return logit.float()

    state.critic.requires_grad_(True)
    judged = losses.critic_loss(critic, batch.pictures, made, **known)
    if state.step % plan.penalty_every == 0:
        steep = losses.gradient_penalty(state.critic, batch.pictures, **known)
        judged = judged + plan.penalty * plan.penalty_every * steep
    _descend(state.critic_optimizer, judged)
    state.critic.requires_grad_(False)
    fooled = losses.generator_loss(critic, batch.pictures, made, **known)
    anchor = losses.reconstruction(made, batch.pictures)
    _descend(state.generator_optimizer, fooled + plan.anchor * anchor)
    return {"l1": anchor.item(), "critic": judged.item(), "fooled": fooled.item()}


def _made(state: Checkpoint, batch: Batch) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        made: Tensor = state.generator(condition(batch.text, batch.vendor, batch.noise))
    return made.float()


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def train(dataset: data.Dataset, plan: Plan, out: Path) -> Checkpoint:
    """Runs to `plan.steps`, from the checkpoint in `out` if one is there."""
    state = Checkpoint.fresh(plan.seed, rate=plan.rate, critic_rate=plan.critic_rate)
    if (out / "state.json").exists():
        state.restore(out)
    began, seen = time.monotonic(), state.step
    while state.step < plan.steps:
        for group in state.generator_optimizer.param_groups:
            group["lr"] = rate_at(plan, state.step)
        batch = draw(dataset, plan, state.step)
        adversarial = state.step >= plan.adversarial
        told = compete(state, batch, plan) if adversarial else regress(state, batch)
        state.step += 1
        state.follow(min(plan.decay, state.step / (state.step + 10)))
        if state.step % 100 == 0:
            told["seconds_per_step"] = (time.monotonic() - began) / (state.step - seen)
            _log(out, {"step": state.step, **told})
        if state.step % plan.save_every == 0 or state.step == plan.steps:
            state.save(out)
            _log(out, {"step": state.step, **evaluate.report(state.average, dataset)})
            evaluate.sheet(state.average, out / f"sheet-{state.step:06d}.png")
    return state


def _log(out: Path, facts: dict[str, float]) -> None:
    rounded = {name: round(value, 5) for name, value in facts.items()}
    with (out / "log.jsonl").open("a") as file:
        file.write(json.dumps(rounded) + "\n")
    print(json.dumps(rounded), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the emoji GAN; resumes by itself.")
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--out", type=Path, default=Path("data/run"))
    for name in ("steps", "adversarial", "batch", "seed", "save_every"):
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=int, default=getattr(Plan(), name))
    for name in ("rate", "critic_rate", "anchor", "jitter"):
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=float, default=getattr(Plan(), name))
    given = vars(parser.parse_args(arguments))
    dataset, out = data.load(given.pop("data")), given.pop("out")
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    train(dataset, Plan(**given), out)


if __name__ == "__main__":
    main()
