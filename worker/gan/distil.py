"""Distils the sentence encoder into the one that ships: `python -m worker.gan.distil --data
data/emoji`. The student learns where the teacher puts a text, puts the names of all languages
where the English one is, and a sentence where the thing is that it asks for; for its last part
it rounds as it will when shipped."""

from __future__ import annotations

import argparse
import functools
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from worker import command
from worker.gan import captions, conditioner, corpus, data, frames, tongues
from worker.gan.conditioner import Conditioner
from worker.gan.encoder import TextEncoder
from worker.gan.everyday import EVERYDAY
from worker.gan.naming import Names
from worker.gan.networks import TEXT
from worker.gan.student_encoder import Student, load, pieces, put_names, save

FRAMES = 50_000


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps of float training, then of training with rounding; the share of the contrastive
    loss beside the cosine, and of texts that stand in a frame. 20 steps a second on one core
    of a small machine."""

    steps: int = 10_000
    rounded_steps: int = 4_000
    batch: int = 512
    rate: float = 3e-3
    contrast: float = 0.05
    framed: float = 0.4
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Lessons:
    """Texts as pieces of words, unit targets [N, 384], and how often each is drawn [N]; the
    first `subjects` of them name things; words of frames that may stand around such a text
    and do not change what it means."""

    pieces: list[list[tuple[int, ...]]]
    targets: Tensor
    weights: Tensor
    subjects: int
    frames: list[list[tuple[int, ...]]]


Answer = Callable[[Sequence[str]], Tensor]  # texts -> unit vectors [N, 384]


def lessons(dataset: Path, answer: Answer, vocabulary: Sequence[str], *, seed: int) -> Lessons:
    """All texts of `worker.gan.corpus` with the teacher's answers as targets."""
    chance = random.Random(seed)
    chosen, languages = data.concepts_of(dataset), data.languages_of(dataset)
    named = answer([captions.names(concept.label, ())[0] for concept in chosen])
    subjects = [
        *corpus.english(chosen, chance),
        *(corpus.Text(text, None, 0.0, 1.0) for text, _, _ in corpus.pairs(chosen, 8_000, chance)),
        *corpus.foreign(chosen, languages),
        *corpus.pictographs(chosen),
    ]
    texts = [*subjects, *corpus.common(vocabulary, 10_000, chance)]
    targets = torch.empty(len(texts), TEXT)
    own = sorted(
        (n for n, one in enumerate(texts) if one.pull < 1), key=lambda n: len(texts[n].text)
    )
    for start in range(0, len(own), 4096):
        part = own[start : start + 4096]
        targets[part] = answer([texts[n].text for n in part])
        print(f"teacher: {start + len(part)} of {len(own)} texts", flush=True)
    for number, one in enumerate(texts):
        if one.concept is not None and one.pull:
            goal = named[one.concept]
            kept = goal if one.pull == 1 else one.pull * goal + (1 - one.pull) * targets[number]
            targets[number] = F.normalize(kept, dim=0)
    amid = corpus.plain(chosen, vocabulary)
    around = (" ".join(frames.frame(chance, amid)) for _ in range(FRAMES))
    return Lessons(
        [pieces(one.text) for one in texts],
        targets,
        torch.tensor([one.weight for one in texts]),
        len(subjects),
        [pieces(text) for text in around if text.strip()],
    )


def teach(student: Student, given: Lessons, plan: Plan, *, steps: int, rate: float) -> None:
    """Adam on 1 - cos(student, target) and a contrastive loss among the batch (van den Oord
    et al. 2018, eq. 4, temperature 1/20), the rate falling to nothing over the steps."""
    optimizer = torch.optim.Adam(student.parameters(), rate, (0.9, 0.99))
    near, chance = 0.0, random.Random(plan.seed)
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = rate * min(1.0, step / 100) * (1 - step / steps) + 1e-5
        rows = torch.multinomial(given.weights, plan.batch, replacement=True)
        made = student([_worded(given, row, plan.framed, chance) for row in rows.tolist()])
        goal = given.targets[rows]
        cosine = (made * goal).sum(1)
        same = (goal @ goal.T > 0.95).float()
        guess = F.log_softmax(20 * made @ goal.T, 1)
        contrast = -(same / same.sum(1, keepdim=True) * guess).sum(1)
        loss = (1 - cosine).mean() + plan.contrast * contrast.mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
        optimizer.step()
        near += (cosine.mean().item() - near) * (0.02 if step > 50 else 0.2)
        if step % 500 == 0:
            print(f"step {step}: cosine {near:.3f}", flush=True)


def _worded(
    given: Lessons, row: int, framed: float, chance: random.Random
) -> list[tuple[int, ...]]:
    """The words of a text, `framed` of those that name things with others around them, whose
    order the student cannot see."""
    text = given.pieces[row]
    if row >= given.subjects or chance.random() >= framed:
        return text
    return [*text, *chance.choice(given.frames)]


@torch.inference_mode()
def report(student: Student, dataset: Path, teacher: Conditioner) -> dict[str, float]:
    """How often the nearest of all English names is the right one: for the names
    themselves, for sentences never trained on, for the pictographs and for each language."""
    chosen = data.concepts_of(dataset)
    named = teacher.encode([captions.names(concept.label, ())[0] for concept in chosen])
    asked = {
        "en": [(captions.names(c.label, ())[0], n) for n, c in enumerate(chosen)],
        "sentences": corpus.held(chosen, random.Random(1)),
        "pictographs": _asked(corpus.pictographs(chosen)),
    }
    for language, entries in data.languages_of(dataset).items():
        asked[language] = _asked(corpus.foreign(chosen, {language: entries}))
    told = {}
    for kind, questions in asked.items():
        made = student([pieces(text) for text, _ in questions])
        right = torch.tensor([concept for _, concept in questions])
        told[kind] = round(((made @ named.T).argmax(1) == right).float().mean().item(), 3)
    return told


def _asked(texts: Iterable[corpus.Text]) -> list[tuple[str, int]]:
    """The names among the texts, without tags."""
    named = ((text.text, text.concept) for text in texts if text.weight >= 2)
    return [(text, concept) for text, concept in named if concept is not None]


def _answered(encoder: TextEncoder, texts: Sequence[str]) -> Tensor:
    return torch.from_numpy(encoder.read(texts))


def names(dataset: Path) -> list[list[str]]:
    """What everything is called that the generator is shown, of both sets: its plain name, what
    stands for it alone, and its own characters."""
    chosen = [concept for kind in data.SETS for concept in data.concepts_of(dataset, kind)]
    signs = [text.text for text in corpus.pictographs(chosen)]
    own = corpus.owned([captions.called(concept.captions) for concept in chosen])
    return [[*texts, sign] for texts, sign in zip(own, signs, strict=True)]


def everyday(dataset: Path) -> dict[str, int]:
    """The words of every day, and the place among `names` of what each means."""
    chosen = data.concepts_of(dataset)
    places = {concept.label: place for place, concept in enumerate(chosen)}
    return {word: places[label] for label, words in EVERYDAY.items() for word in words}


def abroad(dataset: Path) -> bytes:
    """The names in other languages, for `put_names`."""
    chosen, english = data.concepts_of(dataset), Names(names(dataset), everyday(dataset)).known
    languages = data.languages_of(dataset)
    return tongues.pack(*corpus.abroad(chosen, languages, english, conditioner.vocabulary()))


def _put_names(folder: Path, dataset: Path) -> None:
    put_names(folder, names(dataset), everyday(dataset), abroad(dataset))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Distil the text encoder.")
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--out", type=Path, default=Path("worker/weights/emoji-gan"))
    parser.add_argument("--steps", type=int, default=Plan().steps)
    parser.add_argument("--rounded-steps", type=int, default=Plan().rounded_steps)
    parser.add_argument("--rate", type=float, default=Plan().rate)
    parser.add_argument("--start", type=Path, help="folder of an encoder to go on from")
    parser.add_argument(
        "--answers",
        type=Path,
        help="folder of an encoder that is the teacher: texts stay where it puts them, so that "
        "generators that know it keep their conditions, and sentences come to their things",
    )
    parser.add_argument(
        "--names-only", action="store_true", help="put the names of all things anew into --out"
    )
    options = parser.parse_args(arguments)
    if options.names_only:
        _put_names(options.out, options.data)
        return
    torch.set_num_threads(1)
    plan = Plan(steps=options.steps, rounded_steps=options.rounded_steps, rate=options.rate)
    torch.manual_seed(plan.seed)
    begun = load(options.start) if options.start else None
    teacher = Conditioner()
    answer: Answer = teacher.encode
    if options.answers:
        answer = functools.partial(_answered, TextEncoder(options.answers))
    given = lessons(options.data, answer, conditioner.vocabulary(), seed=plan.seed)
    student = begun or Student()
    teach(student, given, plan, steps=plan.steps, rate=plan.rate)
    student.settle(given.pieces[:: max(1, len(given.pieces) // 4096)])
    teach(student, given, plan, steps=plan.rounded_steps, rate=plan.rate / 2)
    save(student, options.out)
    _put_names(options.out, options.data)
    print(json.dumps(report(student, options.data, teacher)))


if __name__ == "__main__":
    command.run(main)
