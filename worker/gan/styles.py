"""Is a picture that was drawn anew in another style in that style, and is it still the same
thing? A small classifier of the vendors' hands, trained here on their own pictures, says the one,
the judge the other. Figures only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.gan import inputs, views
from worker.gan.agreement import Draw
from worker.gan.data import Dataset
from worker.gan.lexicon import Lessons
from worker.gan.networks import NOISE, VENDORS, block, condition
from worker.gan.panel import Panel
from worker.gan.score import Scorer

STEPS, BATCH, RATE = 1500, 64, 3e-3
WIDTHS = (24, 48, 96)
KEPT_EVERY = 5  # concepts whose pictures the classifier never sees
EVERY = 7  # the sources are each seventh picture
DECOYS = 99  # other pictures by the source's vendor


class Hand(nn.Module):
    """Pictures [B, 3, 64, 64] in [0, 1] to a logit for each vendor [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for narrow, wide in zip((3, *WIDTHS), WIDTHS, strict=False):
            steps += [block(narrow, wide, normed=True), nn.MaxPool2d(2)]
        self.maps = nn.Sequential(*steps)
        self.out = nn.Linear(WIDTHS[-1], len(VENDORS))

    def forward(self, pictures: Tensor) -> Tensor:
        seen: Tensor = self.out(self.maps(pictures).mean((2, 3)))
        return seen


def figures(draw: Draw, seen: Panel, given: Lessons, score: Scorer) -> dict[str, float]:
    """style_hand_real: how often the classifier is right of the vendors' own pictures that it
    never saw; style_hand: share of pictures drawn anew that it holds for the style that was
    asked for; style_source: share whose own source is nearer, to the judge, than each of 99
    other pictures by the source's vendor; style_known: share of sources that are recognised."""
    shown = given.pictures
    hand = taught(shown)
    kept = shown.concept % KEPT_EVERY == 0
    told = {"style_hand_real": _right(hand, shown.pictures[kept], shown.vendor[kept])}
    rows = torch.arange(0, len(shown.pictures), EVERY)
    sources, vendor, concept = shown.pictures[rows], shown.vendor[rows], shown.concept[rows]
    wanted = (vendor + 1 + torch.arange(len(rows)) % (len(VENDORS) - 1)) % len(VENDORS)
    text = torch.from_numpy(score.likeliest(sources.permute(0, 2, 3, 1).contiguous().numpy()))
    asked = inputs.emphatic(condition(text, wanted, torch.zeros(len(rows), NOISE)).numpy())
    made = draw(torch.from_numpy(asked))
    known = (text @ given.texts.named.T).argmax(1) == concept
    return told | {
        "style_hand": _right(hand, made, wanted),
        "style_source": _own(seen.vectors(made), seen.vectors(sources), vendor),
        "style_known": known.float().mean().item(),
    }


def taught(shown: Dataset) -> Hand:
    """The classifier, which sees moved, mirrored and blurred pictures of most concepts."""
    torch.manual_seed(0)
    chance = torch.Generator().manual_seed(0)
    hand = Hand()
    optimizer = torch.optim.AdamW(hand.parameters(), RATE)
    own = (shown.concept % KEPT_EVERY != 0).nonzero().flatten()
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
        rows = own[torch.randint(len(own), (BATCH,), generator=chance)]
        noise = torch.randn(BATCH, NOISE, generator=chance)
        pictures = views.view(shown.pictures[rows].float() / 255, noise)
        blurred = F.interpolate(F.avg_pool2d(pictures, 2), scale_factor=2.0, mode="bilinear")
        blur, turn = (torch.rand(BATCH, 1, 1, 1, generator=chance) < 0.5 for _ in range(2))
        pictures = torch.where(blur, blurred, pictures)
        loss = F.cross_entropy(
            hand(torch.where(turn, pictures.flip(3), pictures)), shown.vendor[rows]
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return hand.eval().requires_grad_(False)


def _right(hand: Hand, pictures: Tensor, vendor: Tensor) -> float:
    scale = 255 if pictures.dtype == torch.uint8 else 1
    found = torch.cat([hand(part.float() / scale).argmax(1) for part in torch.split(pictures, 256)])
    return (found == vendor).float().mean().item()


def _own(made: Tensor, sources: Tensor, vendor: Tensor) -> float:
    """made, sources [N, D]: unit vectors, in the same order."""
    chance = torch.Generator().manual_seed(0)
    near, found = made @ sources.T, 0
    for row in range(len(made)):
        others = (vendor == vendor[row]).nonzero().flatten()
        others = others[others != row]
        others = others[torch.randperm(len(others), generator=chance)[:DECOYS]]
        found += bool((near[row, row] > near[row, others]).all())
    return found / len(made)
