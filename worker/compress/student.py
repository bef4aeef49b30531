"""The student: a generator of a fifth of the teacher's arithmetic, cut out of it and taught by
it and by the pictures (`python -m worker.compress.student`). One that goes on from what a student
had learned (`--start`) is ahead of the teacher, and learns from the pictures alone. Stop it
anywhere; the same command goes on."""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from worker import command
from worker.compress.prune import prune
from worker.gan import (
    accelerator,
    batches,
    checkpoint,
    conditioner,
    corpus,
    data,
    folding,
    integers,
    lexicon,
    losses,
    manifest,
    parallel,
    resemblance,
    train,
    validation,
    views,
    weights,
)
from worker.gan.accelerator import Place
from worker.gan.batches import Batch, Lesson, Plan
from worker.gan.checkpoint import Checkpoint
from worker.gan.encoder import TextEncoder
from worker.gan.lexicon import Lessons
from worker.gan.manifest import Figure
from worker.gan.networks import NOISE, Generator, Widths, condition
from worker.gan.train import Distance
from worker.gan.weights import Shipped

WIDTHS = Widths(hidden=384, at4=256, at8=128, at16=64, at32=32, detail=32)
DISTRACTED = 0.4  # share of texts with something said beside their subject
TAUGHT = 0.15  # share of a batch that the teacher draws, for a student that begins
TONED = 0.2  # share of a batch that shows subjects in skin tones
STYLES = 2  # the teacher's pictures serve for the vendors it was trained on: the first two
CALIBRATION = 256


def begin(
    teacher: Shipped, given: Lessons, widths: Widths = WIDTHS, *, student: Shipped | None = None
) -> Generator:
    """The student before its training, with batch norms: cut out of the teacher, or what
    `student` learned before."""
    drawn = batches.draw(given, Plan(batch=CALIBRATION), 0)
    conditions = condition(drawn.text, drawn.vendor, drawn.noise)
    small = student.generator if student else prune(teacher.generator, widths, conditions)
    return folding.unfold(small, conditions)


def free_texts(given: Lessons) -> Tensor:
    """Vectors [N, 384] of texts that no picture answers: subjects with attributes they may
    not have. What they look like, only the teacher can say."""
    chance = random.Random(Plan().seed)
    texts = [t.text for t in corpus.english(given.pictures.concepts, chance) if t.concept is None]
    return lexicon.embed(given.encoder, texts)


def lesson(teacher: Shipped | None, free: Tensor, toned: Lessons | None = None) -> Lesson:
    """Batches of which a share is the teacher's answer to a free text, in a view of its own
    (distillation as regression on the teacher's output: Hinton et al. 2015, section 2), if there
    is a teacher, and a share shows subjects in skin tones, if there are any."""
    answer = integers.IntegerGenerator(teacher.generator, teacher.ranges) if teacher else None

    def taught(given: Lessons, plan: Plan, step: int) -> Batch:
        batch = batches.draw(given, plan, step)
        if answer is not None:
            _answered(batch, answer, free, plan, step)
        if toned is not None:
            of_them = replace(plan, batch=round(TONED * plan.batch), distracted=0.0)
            last = batches.draw(toned, of_them, step)
            beyond = last.concept + len(given.pictures.concepts)
            batch.put(slice(-of_them.batch, None), **last.tensors() | {"concept": beyond})
        return batch

    return taught


def _answered(
    batch: Batch, answer: integers.IntegerGenerator, free: Tensor, plan: Plan, step: int
) -> None:
    """Puts what the teacher answers to free texts [N, 384] in the place of the first rows."""
    chance = torch.Generator().manual_seed(plan.seed * 1_000_003 + step)
    count = round(TAUGHT * plan.batch)
    rows = torch.randint(len(free), (count,), generator=chance)
    vendor = torch.randint(STYLES, (count,), generator=chance)
    still = torch.zeros(count, NOISE)
    drawn = answer(condition(free[rows], vendor, still)).float() / 255
    drawn = views.view(drawn, batch.noise[:count])
    shake = torch.randn(count, free.shape[1], generator=chance)
    text = F.normalize(free[rows] + shake * plan.jitter / free.shape[1] ** 0.5, dim=1)
    nobody = torch.full_like(vendor, losses.UNNAMED)
    batch.put(slice(count), pictures=drawn, text=text, concept=nobody, vendor=vendor)


def teach(
    given: Lessons,
    teacher: Shipped,
    plan: Plan,
    out: Path,
    *,
    widths: Widths = WIDTHS,
    student: Shipped | None = None,
    toned: Lessons | None = None,
    distance: Distance = losses.reconstruction,
    place: Place = accelerator.CPU,
    stop: Callable[[], bool] = lambda: False,
) -> Checkpoint:
    """The whole of the student's training, as `train.train` runs it, and at its end the
    manifest."""
    start = begin(teacher, given, widths, student=student)
    shown = [given, toned] if toned else [given]
    state = train.train(
        given,
        plan,
        out,
        start=start,
        lesson=lesson(None if student else teacher, free_texts(given), toned),
        concepts=sum(len(each.pictures.concepts) for each in shown),
        distance=distance,
        place=place,
        stop=stop,
    )
    if state.step == plan.steps and parallel.first():
        found = validation.report(state.average, given)
        how = "validation.report of the averaged network: training pictures, 256 concepts at most"
        manifest.write(
            out,
            "student",
            made=(checkpoint.TENSORS,),
            source={"teacher": teacher.digest} | ({"student": student.digest} if student else {}),
            settings=asdict(plan) | {"widths": list(astuple(start.widths))},
            figures={
                k: Figure(round(v, 4), "dB" if k == "psnr" else "share", how)
                for k, v in found.items()
            },
        )
    return state


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Teach the student; resumes by itself.")
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--teacher", type=Path, default=Path("worker/weights/emoji-gan"))
    parser.add_argument("--encoder", type=Path, default=Path("worker/weights/emoji-gan"))
    parser.add_argument("--start", type=Path, help="folder of a student to go on from")
    parser.add_argument("--out", type=Path, default=Path("data/student"))
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--adversarial", type=int, default=10_500)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--save-every", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    train.add_objective(parser)
    accelerator.add_place(parser)
    options = parser.parse_args(arguments)
    place = accelerator.place(options.device, options.compile)
    torch.set_num_threads(options.threads)
    plan = Plan(
        steps=options.steps,
        adversarial=options.adversarial,
        rate=options.rate,
        objective=options.objective,
        generator_weight=options.generator_weight,
        critic_weight=options.critic_weight,
        text_weight=options.text_weight,
        critic_width=32,
        distracted=DISTRACTED,
        save_every=options.save_every,
    )
    encoder, words = TextEncoder(options.encoder), conditioner.vocabulary()
    given, toned = (
        lexicon.lessons(options.data, encoder, seed=plan.seed, name=name, vocabulary=words)
        for name in data.SETS
    )
    distance = resemblance.beside_reconstruction(options.data / "packages", place.device)
    with parallel.joined():
        teach(
            given,
            weights.read(options.teacher),
            plan,
            options.out,
            student=weights.read(options.start) if options.start else None,
            toned=toned,
            distance=distance,
            place=place,
            stop=train.stopped_by_signal(),
        )


if __name__ == "__main__":
    command.run(main)
