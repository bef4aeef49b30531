"""The judge: an image encoder trained on a vendor whose drawings the generator never saw
(`python -m worker.gan.judge`), so that it can say without favour what a picture shows.
Used to evaluate, never to train or to render."""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from worker.gan import lexicon, openmoji
from worker.gan.encoder import TextEncoder
from worker.gan.networks import SIDE, TEXT

SHARPNESS = 20.0  # inverse temperature of the comparison with texts
WIDTHS = (48, 96, 192)
FILE = "judge.safetensors"


class Judge(nn.Module):
    """Pixels [B, 3, 64, 64] in [0, 1], seen at half size, to unit vectors [B, 384] in the text
    encoder's space, and the features [B, 192] before them, in which distances are measured."""

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise((12, *widths)):
            stages += [
                _convolution(inputs, outputs),
                _convolution(outputs, outputs),
                nn.MaxPool2d(2),
            ]
        self.trunk = nn.Sequential(*stages)
        self.out = nn.Linear(widths[-1], TEXT)

    def features(self, pictures: Tensor) -> Tensor:
        seen: Tensor = self.trunk(F.pixel_unshuffle(half(pictures) * 2 - 1, 2))
        return seen.mean((2, 3)) + seen.amax((2, 3))

    def forward(self, pictures: Tensor) -> Tensor:
        return F.normalize(self.out(self.features(pictures)), dim=1)


def half(pictures: Tensor) -> Tensor:
    """Pictures [B, 3, 64, 64] at 32x32; those that are that small already stay."""
    return F.avg_pool2d(pictures, 2) if pictures.shape[-1] == SIDE else pictures


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def disguise(pictures: Tensor, chance: torch.Generator) -> Tensor:
    """Pictures [B, 3, S, S] in [0, 1] as another hand might have drawn them: turned, scaled,
    moved, mirrored, without thin dark outlines, in other tints, blurred, partly covered."""
    count = len(pictures)

    def dice(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=chance)

    angle, scale = (dice() - 0.5) * 0.7, 1 / (0.65 + 0.55 * dice())
    flip = torch.where(dice() < 0.3, -1.0, 1.0)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    shift = (dice(2) - 0.5) * 0.4
    rows = torch.stack([cos * flip, -sin, shift[:, 0]], 1)
    cols = torch.stack([sin * flip, cos, shift[:, 1]], 1)
    grid = F.affine_grid(torch.stack([rows, cols], 1), list(pictures.shape), align_corners=False)
    seen = 1 - F.grid_sample(1 - pictures, grid, align_corners=False)
    thick = F.max_pool2d(seen, 3, 1, 1)
    thicker = F.max_pool2d(thick, 3, 1, 1)
    choice = dice(1, 1, 1)
    seen = torch.where(choice < 0.4, thick, torch.where(choice < 0.55, thicker, seen))
    mix = torch.eye(3) + (dice(3, 3) - 0.5) * 0.5
    tinted = 1 - torch.einsum("bchw,bkc->bkhw", 1 - seen, mix)
    seen = torch.where(dice(1, 1, 1) < 0.7, tinted, seen)
    smooth = F.avg_pool2d(F.pad(seen, (1, 1, 1, 1), mode="replicate"), 3, 1)
    seen = torch.where(dice(1, 1, 1) < 0.4, smooth, seen)
    grain = torch.randn(seen.shape, generator=chance) * 0.03
    return (seen + grain).clamp(0, 1)


def train(
    pictures: Tensor,
    concept: Tensor,
    named: Tensor,
    *,
    steps: int,
    widths: Sequence[int] = WIDTHS,
    batch: int = 64,
    seed: int = 0,
) -> Judge:
    """Cross-entropy of a picture's vector against the names of all concepts."""
    torch.manual_seed(seed)
    judge = Judge(widths).train()
    judge.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(judge.parameters(), 2e-3, (0.9, 0.99), weight_decay=1e-2)
    chance = torch.Generator().manual_seed(seed)
    loss_seen = 0.0
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1.0, step / 100) * (1 - step / steps) + 1e-6
        rows = torch.randint(len(pictures), (batch,), generator=chance)
        shown = disguise(half(pictures[rows].float() / 255), chance)
        with torch.autocast("cpu", torch.bfloat16):
            vectors = judge(shown.to(memory_format=torch.channels_last))
        loss = F.cross_entropy(SHARPNESS * vectors.float() @ named.T, concept[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss_seen += (loss.item() - loss_seen) * (0.02 if step > 50 else 0.2)
        if step % 200 == 0:
            print(f"step {step}: loss {loss_seen:.3f}", flush=True)
    return judge.eval().requires_grad_(False)


@torch.inference_mode()
def vectors(judge: Judge, pictures: Tensor) -> Tensor:
    """Unit vectors [N, 384] of pictures [N, 3, 64, 64], uint8 or in [0, 1]."""
    return torch.cat([judge(_unit(part)) for part in torch.split(pictures, 256)])


@torch.inference_mode()
def features(judge: Judge, pictures: Tensor) -> Tensor:
    """Features [N, 192] of pictures [N, 3, 64, 64], uint8 or in [0, 1]."""
    return torch.cat([judge.features(_unit(part)) for part in torch.split(pictures, 256)])


def ranks(seen: Tensor, named: Tensor, wanted: Tensor) -> Tensor:
    """For vectors [N, 384] of pictures: how many names [C, 384] are closer than the right
    one, wanted [N]."""
    close = seen @ named.T
    return (close > close.gather(1, wanted[:, None])).sum(1)


def _unit(pictures: Tensor) -> Tensor:
    return pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures


def load(folder: Path) -> Judge:
    judge = Judge()
    judge.load_state_dict(load_file(folder / FILE))
    return judge.eval().requires_grad_(False)


def save(judge: Judge, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in judge.state_dict().items()}, path)


def parser(description: str, *, out: Path, steps: int) -> argparse.ArgumentParser:
    """What a training command takes."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--data", type=Path, default=Path("data/emoji"))
    made.add_argument("--out", type=Path, default=out)
    made.add_argument("--encoder", type=Path, default=Path("worker/weights/emoji-gan"))
    made.add_argument("--steps", type=int, default=steps)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    command = parser("Train the judge on OpenMoji.", out=Path("data/judge"), steps=3000)
    options = command.parse_args(arguments)
    torch.set_num_threads(1)
    given = lexicon.lessons(options.data, TextEncoder(options.encoder), seed=1)
    pictures, concept = openmoji.pictures(options.data, given.pictures.concepts)
    judge = train(pictures, concept, given.texts.named, steps=options.steps)
    save(judge, options.out / FILE)
    shown, named = given.pictures, given.texts.named
    told = {"openmoji": (ranks(vectors(judge, pictures), named, concept) < 1).float().mean().item()}
    rank = ranks(vectors(judge, shown.pictures), named, shown.concept)
    told |= {"real_rank1": (rank < 1).float().mean().item()}
    told |= {"real_rank5": (rank < 5).float().mean().item(), "chance": 1 / len(named)}
    print(
        json.dumps({name: round(value, 4) for name, value in told.items() if not math.isnan(value)})
    )


if __name__ == "__main__":
    main()
