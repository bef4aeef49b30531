"""Trains the GAN: `python -m worker.gan.train --data data/emoji --out data/run`. First
plain regression, since a caption has one picture and a GAN need not search for it; then
the adversarial objective sharpens it. Stop it anywhere; the same command goes on, and ends
with the same weights. Under `torchrun` several processes share each batch."""

from __future__ import annotations

import argparse
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from worker import command
from worker.gan import (
    accelerator,
    lexicon,
    losses,
    parallel,
    precision,
    validation,
    views,
    weights,
)
from worker.gan.accelerator import Place
from worker.gan.batches import Batch, Lesson, Plan, draw
from worker.gan.checkpoint import TENSORS, Checkpoint
from worker.gan.encoder import TextEncoder
from worker.gan.journal import Journal
from worker.gan.lexicon import Lessons
from worker.gan.networks import Generator, Verdict, condition

JOIN = 400  # steps over which the critic's say grows to its full weight


Distance = Callable[[Tensor, Tensor], Tensor]  # made, real -> how far apart, a scalar


def rate_at(plan: Plan, step: int) -> float:
    """Warm-up over 200 steps, a plateau, a linear fall over the last fifth; under the
    critic two fifths of it."""
    rise = min(1.0, (step + 1) / 200)
    fall = min(1.0, max(0.02, (plan.steps - step) / (0.2 * plan.steps)))
    return plan.rate * min(rise, fall) * (0.4 if step >= plan.adversarial else 1.0)


def regress(
    state: Checkpoint, batch: Batch, distance: Distance = losses.reconstruction
) -> dict[str, float]:
    """One step of regression."""
    made = _made(state, batch)
    loss = distance(made, batch.pictures)
    _descend(state.generator_optimizer, loss)
    return {"l1": loss.item()}


def compete(
    state: Checkpoint, batch: Batch, plan: Plan, distance: Distance = losses.reconstruction
) -> dict[str, float]:
    """One step of both players; the picture made once serves both."""
    made = _made(state, batch)
    state.critic.requires_grad_(True)
    judged, told = _judged(state, batch, plan, made.detach())
    _descend(state.critic_optimizer, judged)
    state.critic.requires_grad_(False)
    fooled, told_of_made = _fooled(state, batch, plan, made)
    anchor = distance(made, batch.pictures)
    join = min(1.0, (state.step - plan.adversarial) / JOIN)
    _descend(state.generator_optimizer, join * fooled + plan.anchor * anchor)
    return {"l1": anchor.item()} | told | told_of_made


def _judged(
    state: Checkpoint, batch: Batch, plan: Plan, made: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """What the critic minimises, and what is told of it."""
    truth, lie = (_verdict(state, batch, pixels, batch.text) for pixels in (batch.pictures, made))
    wrong = _verdict(state, batch, batch.pictures, parallel.roll(batch.text))
    game = losses.GAMES[plan.objective]
    judged = plan.critic_weight * game.critic(truth.logit, lie.logit, wrong.logit)
    told = {}
    if truth.names is not None:
        named = losses.naming(truth.names, batch.concept)
        judged, told = judged + plan.text_weight * named, {"names_real": named.item()}
    if state.step % plan.penalty_every == 0:
        steep = _steepness(state, batch)
        judged = judged + plan.penalty * plan.penalty_every * steep
    return judged, {"critic": judged.item()} | told


def _steepness(state: Checkpoint, batch: Batch) -> Tensor:
    """R1 of the step's pictures, by `forward`: a compiled call has no second gradient."""

    def logit(*given: Tensor) -> Tensor:
        return state.critic.forward(*given).logit

    return losses.gradient_penalty(logit, batch.pictures, text=batch.text, vendor=batch.vendor)


def _fooled(
    state: Checkpoint, batch: Batch, plan: Plan, made: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """What the critic says to the generator, and what is told of it."""
    with torch.no_grad():
        truth = _verdict(state, batch, batch.pictures, batch.text)
    lie = _verdict(state, batch, made, batch.text)
    game = losses.GAMES[plan.objective]
    fooled = plan.generator_weight * game.generator(truth.logit, lie.logit)
    if lie.names is None:
        return fooled, {"fooled": fooled.item()}
    named = losses.naming(lie.names, batch.concept)
    told = {"fooled": fooled.item(), "names_made": named.item()}
    return fooled + plan.text_weight * named, told


def _verdict(state: Checkpoint, batch: Batch, pixels: Tensor, text: Tensor) -> Verdict:
    """The critic's on pictures as augmented as the batch's dice say."""
    chance, shift, light = batch.dice[:, 0], batch.dice[:, 1:3] * 2 - 1, batch.dice[:, 3] * 2 - 1
    seen = views.augment(pixels, chance=chance, shift=shift, light=light)
    with precision.autocast(pixels.device.type):
        found: Verdict = state.critic(seen, text, batch.vendor)
    return Verdict(found.logit.float(), None if found.names is None else found.names.float())


def _made(state: Checkpoint, batch: Batch) -> Tensor:
    with precision.autocast(batch.text.device.type):
        made: Tensor = state.generator(condition(batch.text, batch.vendor, batch.noise))
    return made.float()


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    parallel.average_gradients(p for group in optimizer.param_groups for p in group["params"])
    optimizer.step()


def train(
    given: Lessons,
    plan: Plan,
    out: Path,
    *,
    start: Generator | None = None,
    lesson: Lesson = draw,
    concepts: int | None = None,
    distance: Distance = losses.reconstruction,
    place: Place = accelerator.CPU,
    stop: Callable[[], bool] = lambda: False,
) -> Checkpoint:
    """Runs to `plan.steps`, from the checkpoint in `out` if one is there, else from the
    generator `start`, else from nothing; ends early, saved, after a step that finds `stop`
    true. `lesson` gives the batch of each step, which is drawn on the CPU wherever the run takes
    `place`, of so many `concepts` (by default those of `given`), `distance` how far a picture is
    from the right one."""
    state = Checkpoint.fresh(
        plan.seed,
        rate=plan.rate,
        critic_rate=plan.critic_rate,
        critic_width=plan.critic_width,
        names=(concepts or len(given.pictures.concepts)) if plan.text_weight else 0,
        start=start,
        device=place.device,
    )
    if (out / TENSORS).exists():
        state.restore(out)
    parallel.share_norms(state.generator)
    if place.compiled:
        accelerator.compile(state.generator)
        accelerator.compile(state.critic)
    rows = parallel.rows(plan.batch)
    began, seen = time.monotonic(), state.step
    with ExitStack() as stack:
        first = parallel.first()
        journal = first and stack.enter_context(Journal(out, step=state.step, steps=plan.steps))
        stopped = False
        while state.step < plan.steps and not stopped:
            batch = lesson(given, plan, state.step).part(rows).on(place.device)
            told = advance(state, batch, plan, distance)
            stopped = parallel.any_of(stop())
            shown = state.step % plan.save_every == 0 or state.step == plan.steps
            if state.step % plan.log_every == 0:
                told["seconds_per_step"] = (time.monotonic() - began) / (state.step - seen)
                told = parallel.average_figures(told)
                if journal:
                    journal.scalars(state.step, told)
            if journal:
                journal.at(state.step)
                if shown or stopped:
                    state.save(out)
                if shown:
                    _show(journal, state, given, out)
    parallel.wait()
    return state


def advance(
    state: Checkpoint, batch: Batch, plan: Plan, distance: Distance = losses.reconstruction
) -> dict[str, float]:
    """One step of the run, with what it says of the objective."""
    for group in state.generator_optimizer.param_groups:
        group["lr"] = rate_at(plan, state.step)
    if state.step >= plan.adversarial:
        told = compete(state, batch, plan, distance)
    else:
        told = regress(state, batch, distance)
    state.step += 1
    state.follow(min(plan.decay, state.step / (state.step + 10)))
    return told


def _show(journal: Journal, state: Checkpoint, given: Lessons, out: Path) -> None:
    journal.scalars(state.step, validation.report(state.average, given))
    sheet = out / f"sheet-{state.step:06d}.png"
    validation.sheet(state.average, given.encoder, sheet)
    journal.picture(state.step, sheet)


def stopped_by_signal() -> Callable[[], bool]:
    """Whether SIGINT or SIGTERM has come. A second one ends the process at once, as ever."""
    asked = threading.Event()

    def note(number: int, _frame: object) -> None:
        asked.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, note)
    return asked.is_set


def add_objective(parser: argparse.ArgumentParser) -> None:
    """The options that say what the players ask of each other, named as in `Plan`."""
    parser.add_argument("--objective", choices=losses.GAMES, default=Plan().objective)
    for name in ("generator_weight", "critic_weight", "text_weight"):
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=float, default=getattr(Plan(), name))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the emoji GAN; resumes by itself.")
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--out", type=Path, default=Path("data/run"))
    for name in ("steps", "adversarial", "batch", "seed", "save_every", "log_every"):
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=int, default=getattr(Plan(), name))
    for name in ("rate", "critic_rate", "anchor", "jitter", "distracted"):
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=float, default=getattr(Plan(), name))
    parser.add_argument("--encoder", type=Path, default=Path("worker/weights/emoji-gan"))
    parser.add_argument("--start", type=Path, help="shipped weights to go on from")
    add_objective(parser)
    accelerator.add_place(parser)
    given = vars(parser.parse_args(arguments))
    place = accelerator.place(given.pop("device"), given.pop("compile"))
    folder, out, start = given.pop("data"), given.pop("out"), given.pop("start")
    torch.set_num_threads(1)
    lessons = lexicon.lessons(folder, TextEncoder(given.pop("encoder")), seed=given["seed"])
    begin = weights.read(start).generator if start else None
    with parallel.joined():
        train(lessons, Plan(**given), out, start=begin, place=place, stop=stopped_by_signal())


if __name__ == "__main__":
    command.run(main)
