"""What the model can do beside drawing: whether its score tells right captions from wrong
ones and the better of several pictures, and how well it fills holes. Figures only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.gan import agreement, data, panel, repair, scorer
from worker.gan.agreement import Draw
from worker.gan.lexicon import Lessons
from worker.gan.networks import NOISE, SIDE, condition
from worker.gan.panel import Panel
from worker.gan.score import Scorer

TRIES = 4


@dataclass(frozen=True, slots=True)
class Hole:
    """A picture uint8 [H, W, 3] and where it is to be filled."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.uint8]


def scores(draw: Draw, seen: Panel, given: Lessons, score: Scorer) -> dict[str, float]:
    """score_auc: how well the score tells pictures drawn of names under their own from those
    under the name of another of these pictures; near_: under one of the ten nearest names;
    kept_: of concepts that the scorer never learned; real_: of the vendors' pictures of these.
    For k of 1 and 5, first_rank and best_rank: the judge's agreement with the first of four
    seeds, and with the one that the score likes best."""
    shown, named = given.pictures, given.texts.named
    known = torch.arange(len(named))
    known = known[known % data.HELD_EVERY != data.HELD_FIRST]
    tries = torch.stack([_bytes(agreement.drawn(draw, named[known], n)) for n in range(TRIES)])
    kept = ~torch.isin(known, scorer.taught(len(named)))
    real = ~torch.isin(shown.concept, scorer.taught(len(named)))
    pictures = {
        "": (tries[0][~kept], known[~kept]),
        "kept_": (tries[0][kept], known[kept]),
        "real_": (shown.pictures[real], shown.concept[real]),
    }
    told: dict[str, float] = {}
    for kind, (of, concept) in pictures.items():
        told |= _areas(kind, score, of, concept, named)
    liked = torch.tensor([_scored(score, each, named[known]) for each in tries]).argmax(0)
    best = tries[liked, torch.arange(len(known))]
    for name, chosen in (("first", tries[0]), ("best", best)):
        rank = panel.ranks(seen.vectors(chosen), seen.named[: len(named)], known)
        told |= {f"{name}_rank{k}": (rank < k).float().mean().item() for k in (1, 5)}
    return told


def _areas(
    kind: str, score: Scorer, pictures: Tensor, concept: Tensor, named: Tensor
) -> dict[str, float]:
    chance = torch.Generator().manual_seed(0)
    asked, own = torch.unique(concept, return_inverse=True)
    other = asked[(own + torch.randint(1, len(asked), own.shape, generator=chance)) % len(asked)]
    near = scorer.nearest(named)
    place = torch.randint(near.shape[1], concept.shape, generator=chance)
    wrong = {"": other, "near_": near[concept, place]}
    right = torch.tensor(_scored(score, pictures, named[concept]))
    return {
        f"{kind}{how}score_auc": auc(right, torch.tensor(_scored(score, pictures, named[one])))
        for how, one in wrong.items()
    }


def auc(right: Tensor, wrong: Tensor) -> float:
    """The chance that a right pair's score is above a wrong pair's, ties as half: the area
    under the receiver operating characteristic (Hanley and McNeil 1982)."""
    above = (right[:, None] > wrong).float() + 0.5 * (right[:, None] == wrong).float()
    return above.mean().item()


def _scored(score: Scorer, pictures: Tensor, texts: Tensor) -> list[float]:
    pixels = pictures.permute(0, 2, 3, 1).contiguous().numpy()
    return score(pixels, texts.numpy(), [1] * len(pixels))


def _bytes(pictures: Tensor) -> Tensor:
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8)


def _pixels(pictures: Tensor) -> NDArray[np.uint8]:
    made: NDArray[np.uint8] = _bytes(pictures).permute(0, 2, 3, 1).numpy()
    return made


def repairs(draw: Draw, given: Lessons, *, held: bool) -> dict[str, float]:
    """Mean absolute error inside holes of 25 to 50 % (in [0, 1]) of the repair, and of filling
    with the mean colour of what is kept, and by OpenCV where it is installed: for pictures of
    concepts that training never saw (`held`) or for known ones."""
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
    inpainted = _by_opencv()
    found: dict[str, list[float]] = {}
    for row, hole, made in zip(rows, holes, filled, strict=True):
        truth = shown.pictures[row].permute(1, 2, 0).numpy().astype(float)
        inside = hole.mask > 0
        fills = {"repair": made[inside], "mean_fill": truth[~inside].mean(0)}
        fills |= {name: fill(hole)[inside] for name, fill in inpainted.items()}
        for name, fill in fills.items():
            found.setdefault(name, []).append(np.abs(fill - truth[inside]).mean())
    which = "held" if held else "known"
    return {f"{name}_error_{which}": float(np.mean(all_)) / 255 for name, all_ in found.items()}


def _by_opencv() -> dict[str, Callable[[Hole], NDArray[np.uint8]]]:
    """Both of its ways to fill a hole, looking 3 pixels around, where it is installed (`pip install
    opencv-python-headless`): Telea, "An Image Inpainting Technique Based on the Fast Marching
    Method" (2004), and Bertalmio et al., "Navier-Stokes, Fluid Dynamics, and Image and Video
    Inpainting" (2001)."""
    if not find_spec("cv2"):
        return {}
    cv2: Any = import_module("cv2")

    def filled(way: int, hole: Hole) -> NDArray[np.uint8]:
        return np.asarray(cv2.inpaint(hole.pixels, hole.mask, 3, way))

    return {
        "opencv_telea": partial(filled, cv2.INPAINT_TELEA),
        "opencv_ns": partial(filled, cv2.INPAINT_NS),
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
