"""What training looks at as it goes: how near the pictures are to the true ones, and a sheet of
fixed prompts. `worker.gan.evaluate` asks the judge."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from worker.gan import captions, corpus, data, lexicon, views
from worker.gan.encoder import TextEncoder
from worker.gan.lexicon import Lessons
from worker.gan.networks import NOISE, VENDORS, condition

PROMPTS = (
    "red heart", "grinning face", "french flag", "soccer ball",
    "pizza", "dog face", "rocket", "sun",
    "a cat", "smiling face with sunglasses", "crying face", "thumbs up",
    "fire", "christmas tree", "hamburger", "strawberry",
    "a red car", "airplane", "house", "penguin",
    "flag of Japan", "rainbow", "skull", "ghost",
    "an apple", "guitar", "birthday cake", "snowman",
    "a yellow star", "unicorn", "robot, twemoji style", "rocket, fluent style",
    "a cat and a dog", "an apple and a rocket", "ein rotes Auto", "perro",
    "火箭", "りんご", "gâteau d'anniversaire", "🐳",
)  # fmt: skip


@torch.inference_mode()
def draw(model: nn.Module, text: Tensor, vendor: Tensor, *, noise: Tensor) -> Tensor:
    """Pictures [N, 3, 64, 64] in [0, 1], 32 at a time, wherever the model is."""
    place = next((one.device for one in model.parameters()), text.device)
    parts = torch.split(condition(text, vendor, noise), 32)
    return torch.cat([model(part.to(place)).clamp(0, 1).to(text.device) for part in parts])


def report(model: nn.Module, given: Lessons, sample: int = 256) -> dict[str, float]:
    """For `sample` concepts spread over the set: PSNR in decibel of the plain name drawn as
    noto, and how often the nearest true picture of that vendor (16x16 pixels, Euclidean) is
    the right one, for the name in each style, and for sentences in a wording that
    training never saw."""
    shown = given.pictures
    known = torch.arange(len(shown.concepts))
    known = known[known % data.HELD_EVERY != data.HELD_FIRST]
    concept = known[torch.linspace(0, len(known) - 1, min(sample, len(known))).long()]
    noise = torch.zeros(len(shown.pictures), NOISE)
    shelf = _small(views.view(shown.pictures.float() / 255, noise))

    def found(text: Tensor, wanted: Tensor, vendor: int = 0) -> float:
        made = draw(model, text, torch.full_like(wanted, vendor), noise=noise[: len(wanted)])
        drawn = (shown.vendor == vendor).nonzero().flatten()
        nearest = drawn[torch.cdist(_small(made), shelf[drawn]).argmin(1)]
        return (shown.concept[nearest] == wanted).float().mean().item()

    told = {"psnr": _closeness(model, given, concept)}
    for number, vendor in enumerate(VENDORS):
        told[f"found_{vendor}"] = found(given.texts.named[concept], concept, number)
    held = {number: text for text, number in corpus.held(shown.concepts, random.Random(1))}
    sentences = [held[number] for number in concept.tolist()]
    told["found_sentence"] = found(lexicon.embed(given.encoder, sentences), concept)
    return told


def _closeness(model: nn.Module, given: Lessons, concept: Tensor) -> float:
    shown = given.pictures
    noto = (shown.vendor == 0).nonzero().flatten()
    rows = noto[torch.isin(shown.concept[noto], concept)]
    noise = torch.zeros(len(rows), NOISE)
    text = given.texts.named[shown.concept[rows]]
    made = draw(model, text, shown.vendor[rows], noise=noise)
    truth = views.view(shown.pictures[rows].float() / 255, noise)
    return -10 * math.log10(F.mse_loss(made, truth).item())


def _small(pictures: Tensor) -> Tensor:
    return F.avg_pool2d(pictures, pictures.shape[-1] // 16).flatten(1)


def sheet(model: nn.Module, encoder: TextEncoder, path: Path, columns: int = 8) -> None:
    """Saves `PROMPTS` in reading order, drawn with one fixed noise; a prompt without a
    style is drawn in the first."""
    plain, vendors = zip(*(captions.parse(prompt) for prompt in PROMPTS), strict=True)
    noise = torch.randn(len(plain), NOISE, generator=torch.Generator().manual_seed(0))
    vendor = torch.tensor([number or 0 for number in vendors])
    tiles = to_pixels(draw(model, lexicon.embed(encoder, plain), vendor, noise=noise))
    save(tiles, columns, path)


def save(pictures: NDArray[np.uint8], columns: int, path: Path) -> None:
    """Tiles as a small PNG of 256 colours."""
    Image.fromarray(tile(pictures, columns)).quantize(256).save(path, optimize=True)


def to_pixels(pictures: Tensor) -> NDArray[np.uint8]:
    """Pictures [N, 3, S, S] in [0, 1] to uint8 [N, S, S, 3]."""
    bytes_ = (pictures.clamp(0, 1) * 255).round().to(torch.uint8)
    return bytes_.permute(0, 2, 3, 1).contiguous().numpy()


def tile(pictures: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Pictures [N, S, S, 3] as one, row by row; N is a multiple of columns."""
    starts = range(0, len(pictures), columns)
    rows = [np.concatenate(list(pictures[at : at + columns]), axis=1) for at in starts]
    return np.concatenate(rows)
