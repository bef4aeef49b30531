"""Distils the sentence encoder into the one that ships: `python -m worker.gan.distil --data
data/emoji`. The student learns where the teacher puts a text, puts the names of all languages
where the English one is, and a sentence where the thing is that it asks for; for its last part
it rounds as it will when shipped."""

from __future__ import annotations

import argparse
import functools
import json
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from worker.gan import captions, corpus, data, frames, lexicon, words
from worker.gan.conditioner import Conditioner
from worker.gan.encoder import FILE, FLOOR, TextEncoder
from worker.gan.networks import TEXT

WIDTH = 96
HIDDEN = 512
FRAMES = 50_000
CODE = 127  # greatest code of weights and pooled words; hidden codes reach 255


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


class Student(nn.Module):
    """`encoder.TextEncoder` as a network with gradients. steps: size of a code of the
    pooled words and of the hidden layer, once they are known; from then on it rounds."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(words.BUCKETS, WIDTH)
        nn.init.normal_(self.table.weight, std=1.2 / math.sqrt(WIDTH))
        self.say = nn.Embedding(words.BUCKETS, 1)
        nn.init.zeros_(self.say.weight)
        self.hidden = nn.Linear(2 * WIDTH, HIDDEN)
        self.out = nn.Linear(HIDDEN, TEXT)
        self.steps: tuple[float, float] | None = None

    def pool(self, texts: Sequence[Sequence[tuple[int, ...]]]) -> Tensor:
        """Weighted mean and greatest of the words of each text: [B, 2 * WIDTH]."""
        rows = torch.tensor([row for text in texts for word in text for row in word])
        counts = torch.tensor([len(word) for text in texts for word in text])
        word = torch.arange(len(counts)).repeat_interleave(counts)
        text = torch.arange(len(texts)).repeat_interleave(torch.tensor([len(t) for t in texts]))
        root = counts.float().sqrt()[:, None]
        table, say = self._rounded(self.table.weight, 0), self._rounded(self.say.weight, None)
        sums = _sum(F.embedding(rows, table), word, len(counts)) / root
        u = _sum(F.embedding(rows, say), word, len(counts)) / root
        share = 0.5 + 0.5 * u / (1 + u.abs())
        mean = _sum(sums * share, text, len(texts))
        mean = mean / (_sum(share.square(), text, len(texts)).sqrt() + FLOOR)
        places = text[:, None].expand_as(sums)
        most = torch.full((len(texts), WIDTH), -math.inf).scatter_reduce(0, places, sums, "amax")
        return torch.cat([mean, most], 1)

    def forward(self, texts: Sequence[Sequence[tuple[int, ...]]]) -> Tensor:
        """Unit vectors [B, 384]."""
        pooled = self.pool(texts)
        if self.steps:
            pooled = _codes(pooled, self.steps[0], -CODE, CODE)
        hidden = self.inner(pooled)
        if self.steps:
            hidden = _codes(hidden, self.steps[1], 0, 255)
        return F.normalize(F.linear(hidden, self._rounded(self.out.weight, 1), self.out.bias))

    def inner(self, pooled: Tensor) -> Tensor:
        weight = self._rounded(self.hidden.weight, 1)
        return F.linear(pooled, weight, self.hidden.bias).relu()

    @torch.no_grad()
    def settle(self, texts: Sequence[Sequence[tuple[int, ...]]]) -> None:
        """From now on every value is one of a few codes; these texts tell their range."""
        pooled = self.pool(texts)
        reach = pooled.abs().flatten()[::7].quantile(0.9995).item()
        self.steps = (reach / CODE, self.inner(pooled).max().item() * 1.1 / 255)

    def _rounded(self, weight: Tensor, axis: int | None) -> Tensor:
        return weight if self.steps is None else _codes(weight, scale(weight, axis), -CODE, CODE)


def scale(weight: Tensor, axis: int | None) -> Tensor:
    """The size of one code: for all of a matrix, or for each slice along the other axis."""
    size = weight.detach().abs()
    greatest = size.max() if axis is None else size.amax(axis, keepdim=True)
    return (greatest / CODE).clamp_min(1e-6)


def _codes(values: Tensor, step: Tensor | float, least: int, most: int) -> Tensor:
    """Rounded to codes; gradients pass unchanged (Bengio et al. 2013, section 4)."""
    return values + ((values / step).round().clamp(least, most) * step - values).detach()


def _sum(values: Tensor, places: Tensor, count: int) -> Tensor:
    return torch.zeros(count, values.shape[1]).index_add_(0, places, values)


def pieces(text: str) -> list[tuple[int, ...]]:
    return [words.pieces(word) for word in words.words(text) or ["\0"]]


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
    for name, questions in asked.items():
        made = student([pieces(text) for text, _ in questions])
        right = torch.tensor([concept for _, concept in questions])
        told[name] = round(((made @ named.T).argmax(1) == right).float().mean().item(), 3)
    return told


def _asked(texts: Iterable[corpus.Text]) -> list[tuple[str, int]]:
    """The names among the texts, without tags."""
    named = ((text.text, text.concept) for text in texts if text.weight >= 2)
    return [(text, concept) for text, concept in named if concept is not None]


def save(student: Student, folder: Path) -> None:
    """The file that `encoder.TextEncoder` reads. Raises ValueError before `settle`."""
    if student.steps is None:
        raise ValueError("only a settled student can be saved")
    table, say = student.table.weight.detach(), student.say.weight.detach()
    tensors = {
        "table": _int8(table, scale(table, 0)),
        "table_scale": scale(table, 0)[0],
        "say": _int8(say, scale(say, None))[:, 0],
        "say_scale": scale(say, None).reshape(1),
        "ranges": torch.tensor(student.steps),
    }
    for name, layer in (("hidden", student.hidden), ("out", student.out)):
        weight = layer.weight.detach()
        tensors |= {
            f"{name}.weight": _int8(weight, scale(weight, 1)),
            f"{name}.scale": scale(weight, 1)[:, 0],
            f"{name}.bias": layer.bias.detach(),
        }
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / FILE)


def load(folder: Path) -> Student:
    """The student whose file `folder` has, in float: it has to settle again."""
    given, student = load_file(folder / FILE), Student()
    state = {
        "table.weight": given["table"] * given["table_scale"],
        "say.weight": given["say"][:, None] * given["say_scale"],
    }
    for name in ("hidden", "out"):
        state[f"{name}.weight"] = given[f"{name}.weight"] * given[f"{name}.scale"][:, None]
        state[f"{name}.bias"] = given[f"{name}.bias"]
    student.load_state_dict(state)
    return student


def _int8(weight: Tensor, step: Tensor) -> Tensor:
    return (weight / step).round().clamp(-CODE, CODE).to(torch.int8)


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
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    plan = Plan(steps=options.steps, rounded_steps=options.rounded_steps, rate=options.rate)
    torch.manual_seed(plan.seed)
    teacher = Conditioner()
    answer: Answer = teacher.encode
    if options.answers:
        answer = functools.partial(lexicon.embed, TextEncoder(options.answers))
    given = lessons(options.data, answer, teacher.vocabulary(), seed=plan.seed)
    student = load(options.start) if options.start else Student()
    teach(student, given, plan, steps=plan.steps, rate=plan.rate)
    student.settle(given.pieces[:: max(1, len(given.pieces) // 4096)])
    teach(student, given, plan, steps=plan.rounded_steps, rate=plan.rate / 2)
    save(student, options.out)
    print(json.dumps(report(student, options.data, teacher)))


if __name__ == "__main__":
    main()
