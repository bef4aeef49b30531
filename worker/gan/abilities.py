"""What the model can do beside drawing: whether its score tells right captions from wrong
ones and the better of several pictures, and how well it fills holes. Figures only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.gan import agreement, data, judge, repair
from worker.gan.agreement import Draw
from worker.gan.judge import Judge
from worker.gan.lexicon import Lessons
from worker.gan.networks import NOISE, SIDE, condition
from worker.gan.scorer import Scorer, auc

TRIES = 4
ASKED = 300  # concepts whose pictures are scored


@dataclass(frozen=True, slots=True)
class Hole:
    """A picture uint8 [H, W, 3] and where it is to be filled."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.uint8]


def scores(draw: Draw, seen: Judge, given: Lessons, scorer: Scorer) -> dict[str, float]:
    """score_auc: of drawn pictures under their own and under another's name; real_score_auc:
    the same of the vendors' pictures of concepts that training never saw; first_rank1 and
    best_rank1: the judge's agreement with the first of four seeds, and with the one that the
    score likes best."""
    shown, named = given.pictures, given.texts.named
    known = torch.arange(len(named))
    known = known[known % data.HELD_EVERY != data.HELD_FIRST]
    asked = known[torch.linspace(0, len(known) - 1, min(ASKED, len(known))).long()]
    tries = torch.stack([_bytes(agreement.drawn(draw, named[asked], n)) for n in range(TRIES)])
    told = {"score_auc": _auc(scorer, tries[0], asked, named)}
    fresh = shown.weight == 0
    told["real_score_auc"] = _auc(scorer, shown.pictures[fresh], shown.concept[fresh], named)
    liked = torch.tensor([scorer(each, named[asked]) for each in tries]).argmax(0)
    best = tries[liked, torch.arange(len(asked))]
    for name, pictures in (("first_rank1", tries[0]), ("best_rank1", best)):
        rank = judge.ranks(judge.vectors(seen, pictures), seen.named, asked)
        told[name] = (rank < 1).float().mean().item()
    return told


def _auc(scorer: Scorer, pictures: Tensor, concept: Tensor, named: Tensor) -> float:
    right = torch.tensor(scorer(pictures, named[concept]))
    wrong = torch.tensor(scorer(pictures, named[concept.roll(1)]))
    return auc(right, wrong)


def _bytes(pictures: Tensor) -> Tensor:
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8)


def _pixels(pictures: Tensor) -> NDArray[np.uint8]:
    made: NDArray[np.uint8] = _bytes(pictures).permute(0, 2, 3, 1).numpy()
    return made


def repairs(draw: Draw, given: Lessons, *, held: bool) -> dict[str, float]:
    """Mean absolute error inside holes of 25 to 50 % (in [0, 1]) of the repair, and of filling
    with the mean colour of what is kept: for pictures of concepts that training never saw
    (`held`) or for known ones."""
    shown, chance = given.pictures, torch.Generator().manual_seed(0)
    rows = (
        (shown.weight == 0).nonzero().flatten() if held else torch.arange(7, len(shown.weight), 50)
    )
    holes = [_hole(shown.pictures[row], chance) for row in rows]
    text = given.texts.named[shown.concept[rows]]
    conditions = condition(text, shown.vendor[rows], torch.zeros(len(rows), NOISE))
    filled = repair.fill(
        lambda part: _pixels(draw(torch.from_numpy(part))), conditions.numpy(), holes
    )
    mine, mean = [], []
    for row, hole, made in zip(rows, holes, filled, strict=True):
        truth = shown.pictures[row].permute(1, 2, 0).numpy().astype(float)
        inside = hole.mask > 0
        mine.append(np.abs(made[inside] - truth[inside]).mean())
        mean.append(np.abs(truth[~inside].mean(0) - truth[inside]).mean())
    name = "held" if held else "known"
    return {
        f"repair_error_{name}": float(np.mean(mine)) / 255,
        f"mean_fill_error_{name}": float(np.mean(mean)) / 255,
    }


def _hole(picture: Tensor, chance: torch.Generator) -> Hole:
    """A square hole of 25 to 50 % of the picture at a random place."""
    share = 0.25 + 0.25 * torch.rand((), generator=chance).item()
    side = round(SIDE * share**0.5)
    x, y = (int(torch.randint(SIDE - side + 1, (), generator=chance)) for _ in range(2))
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    mask[y : y + side, x : x + side] = 255
    pixels = picture.permute(1, 2, 0).numpy().copy()
    pixels[mask > 0] = 0
    return Hole(pixels, mask)
