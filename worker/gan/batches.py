"""What a run is taught, step by step: its settings, and the batch that these and the number of a
step make, whatever ran before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from worker.gan import accelerator, views
from worker.gan.lexicon import Lessons, Lexicon
from worker.gan.networks import NOISE, TEXT

DISTRACTION = 0.8  # greatest length of what is said beside a subject, whose own is 1
OTHER = 0.7  # of that, where it is another concept


@dataclass(frozen=True, slots=True)
class Plan:
    """The run's settings. Steps are absolute, so that a resumed run may get more."""

    steps: int = 20_000
    adversarial: int = 12_000  # first step with the critic
    batch: int = 32
    rate: float = 1.5e-3
    critic_rate: float = 3e-4
    objective: str = "relativistic"  # one of `losses.GAMES`
    generator_weight: float = 1.0  # λ_G
    critic_weight: float = 1.0  # λ_D
    text_weight: float = 0.0  # λ_text; with 0 the critic has no head that names concepts
    anchor: float = 6.0  # weight of the reconstruction beside the adversarial loss
    critic_width: int = 48
    penalty: float = 1.0  # R1's gamma
    penalty_every: int = 16
    jitter: float = 0.12  # text noise, in units of a component's own spread
    distracted: float = 0.0  # share of texts that something else is said beside
    decay: float = 0.998
    seed: int = 1
    save_every: int = 1000
    log_every: int = 100


@dataclass(frozen=True, slots=True)
class Batch:
    """pictures [B, 3, 64, 64] in [0, 1], text [B, 384], concept [B] (`losses.UNNAMED` where no
    picture answers the text), vendor [B], noise [B, 16], dice [B, 4] uniform in [0, 1) for the
    augmentation."""

    pictures: Tensor
    text: Tensor
    concept: Tensor
    vendor: Tensor
    noise: Tensor
    dice: Tensor

    def tensors(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def part(self, rows: slice) -> Batch:
        return Batch(**{name: tensor[rows] for name, tensor in self.tensors().items()})

    def on(self, device: str) -> Batch:
        return Batch(**{k: accelerator.moved(v, device) for k, v in self.tensors().items()})

    def put(self, rows: slice, **others: Tensor) -> None:
        """Puts others in the place of these rows."""
        for name, tensor in others.items():
            getattr(self, name)[rows] = tensor


Lesson = Callable[[Lessons, Plan, int], Batch]


def draw(given: Lessons, plan: Plan, step: int) -> Batch:
    """The batch of a step: a function of the plan's seed and the step alone."""
    chance = torch.Generator().manual_seed(plan.seed * 1_000_003 + step)
    shown, texts = given.pictures, given.texts
    rows = torch.multinomial(shown.weight, plan.batch, replacement=True, generator=chance)
    pictures = shown.pictures[rows].float() / 255
    text = torch.stack([wording(texts, c, chance) for c in shown.concept[rows].tolist()])
    text = text + distraction(texts, plan, chance)
    shake = torch.randn(plan.batch, TEXT, generator=chance) * plan.jitter / TEXT**0.5
    noise = torch.randn(plan.batch, NOISE, generator=chance)
    return Batch(
        views.view(pictures, noise),
        torch.nn.functional.normalize(text + shake, dim=1),
        shown.concept[rows],
        shown.vendor[rows],
        noise,
        torch.rand(plan.batch, 4, generator=chance),
    )


def wording(texts: Lexicon, concept: int, chance: torch.Generator) -> Tensor:
    first, count = texts.spans[concept].tolist()
    odds = texts.odds[first : first + count]
    return texts.text[first + int(torch.multinomial(odds, 1, generator=chance))].float()


def distraction(texts: Lexicon, plan: Plan, chance: torch.Generator) -> Tensor:
    """[B, 384] to add to texts, zero for those left alone. A sentence's vector is its
    subject's and, beside it, that of the words around: half the time such words, else some
    other concept's text, weaker than the subject (mixup of inputs, of which the label of
    the stronger stays: Zhang et al. 2018, eq. 1)."""
    if not plan.distracted:
        return torch.zeros(plan.batch, TEXT)
    around = texts.around[torch.randint(len(texts.around), (plan.batch,), generator=chance)]
    other = texts.text[torch.randint(len(texts.text), (plan.batch,), generator=chance)].float()
    odds, kind, much = torch.rand(3, plan.batch, 1, generator=chance)
    said = torch.where(kind < 0.5, around, OTHER * other)
    added: Tensor = said * much * DISTRACTION * (odds < plan.distracted)
    return added
