"""How well a generator draws: a figure for each claim, and a sheet of fixed prompts to
look at."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from worker.gan import captions, data, views
from worker.gan.conditioner import Conditioner
from worker.gan.networks import NOISE, condition

PROMPTS = (
    "red heart", "grinning face", "french flag", "soccer ball",
    "pizza", "dog face", "rocket", "sun",
    "a cat", "smiling face with sunglasses", "crying face", "thumbs up",
    "fire", "christmas tree", "hamburger", "strawberry",
    "a red car", "airplane", "house", "penguin",
    "flag of Japan", "rainbow", "skull", "ghost",
    "an apple", "guitar", "birthday cake", "snowman",
    "a yellow star", "unicorn", "robot, twemoji style", "rocket, twemoji style",
)  # fmt: skip


@torch.inference_mode()
def draw(model: nn.Module, text: Tensor, vendor: Tensor, *, noise: Tensor) -> Tensor:
    """Pictures [N, 3, 64, 64] in [0, 1], 32 at a time."""
    conditions = condition(text, vendor, noise)
    return torch.cat([model(part).clamp(0, 1) for part in torch.split(conditions, 32)])


def report(model: nn.Module, dataset: data.Dataset, sample: int = 256) -> dict[str, float]:
    """On noto pictures of `sample` concepts spread over the set, for the label and for a
    wording never trained on: PSNR in decibel, and how often the nearest true picture of
    all (16x16 pixels, Euclidean) is the right one."""
    noto = (dataset.vendor == 0).nonzero().squeeze(1)
    rows = noto[torch.linspace(0, len(noto) - 1, min(sample, len(noto))).long()]
    concept, vendor = dataset.concept[rows], dataset.vendor[rows]
    noise = torch.zeros(len(rows), NOISE)
    truth = views.view(dataset.pictures[rows].float() / 255, noise)
    shelf = _small(dataset.pictures[noto].float() / 255)
    told: dict[str, float] = {}
    wordings = {"label": dataset.text[dataset.spans[concept, 0]], "unseen": dataset.unseen[concept]}
    for name, text in wordings.items():
        made = draw(model, text, vendor, noise=noise)
        told[f"psnr_{name}"] = -10 * math.log10(F.mse_loss(made, truth).item())
        nearest = noto[torch.cdist(_small(made), shelf).argmin(1)]
        told[f"found_{name}"] = (dataset.concept[nearest] == concept).float().mean().item()
    return told


def _small(pictures: Tensor) -> Tensor:
    return F.avg_pool2d(pictures, pictures.shape[-1] // 16).flatten(1)


@cache
def _prompts() -> tuple[Tensor, Tensor]:
    plain, vendors = zip(*(captions.parse(prompt) for prompt in PROMPTS), strict=True)
    return Conditioner().encode(plain), torch.tensor(vendors)


def sheet(model: nn.Module, path: Path, columns: int = 8) -> None:
    """Saves `PROMPTS` in reading order, drawn with one fixed noise."""
    text, vendor = _prompts()
    noise = torch.randn(len(text), NOISE, generator=torch.Generator().manual_seed(0))
    tiles = to_pixels(draw(model, text, vendor, noise=noise))
    Image.fromarray(tile(tiles, columns)).save(path, optimize=True)


def to_pixels(pictures: Tensor) -> NDArray[np.uint8]:
    """Pictures [N, 3, S, S] in [0, 1] to uint8 [N, S, S, 3]."""
    bytes_ = (pictures.clamp(0, 1) * 255).round().to(torch.uint8)
    return bytes_.permute(0, 2, 3, 1).contiguous().numpy()


def tile(pictures: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Pictures [N, S, S, 3] as one, row by row; N is a multiple of columns."""
    starts = range(0, len(pictures), columns)
    rows = [np.concatenate(list(pictures[at : at + columns]), axis=1) for at in starts]
    return np.concatenate(rows)
