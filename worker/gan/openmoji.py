"""The pictures of the vendor that only judges, OpenMoji (CC BY-SA 4.0): for evaluation alone,
never part of this tree, and no generator sees them."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from worker.gan import data
from worker.gan.data import Concept
from worker.gan.networks import SIDE

PACKAGE = "openmoji@17.0.0"
FOLDER = "package/color/svg"
OUTLINES = (1.0, 0.5, 0.1)  # of their width: the other vendors draw none
MARGIN = 0.03  # of the picture's side, around what is drawn
_WIDTH = re.compile(rb'stroke-width="([\d.]+)"')


def pictures(folder: Path, chosen: Sequence[Concept]) -> tuple[Tensor, Tensor]:
    """Pictures uint8 [N, 3, 64, 64] with outlines of each width, and the concept of each."""
    wanted = {data.points(concept.code): number for number, concept in enumerate(chosen)}
    rows = []
    with tarfile.open(data.fetch(PACKAGE, folder / "packages")) as bundle:
        for member in bundle:
            path = Path(member.name)
            if str(path.parent) != FOLDER or not data.CODED.fullmatch(path.name):
                continue
            number, file = wanted.get(data.points(path.stem)), bundle.extractfile(member)
            if number is not None and file is not None:
                svg = file.read()
                rows += [(filled(outlined(svg, share)), number) for share in OUTLINES]
    drawn, concept = zip(*rows, strict=True)
    return torch.from_numpy(np.stack(drawn)), torch.tensor(concept)


def plain(folder: Path, chosen: Sequence[Concept]) -> tuple[Tensor, Tensor]:
    """Pictures uint8 [N, 3, 64, 64] as they are published, and the concept of each."""
    found = data.sprites(data.fetch(PACKAGE, folder / "packages"), FOLDER.removeprefix("package/"))
    points = [data.points(concept.code) for concept in chosen]
    rows = [(found[each], number) for number, each in enumerate(points) if each in found]
    drawn, concept = zip(*rows, strict=True)
    return torch.from_numpy(np.stack(drawn)), torch.tensor(concept)


def outlined(svg: bytes, share: float) -> bytes:
    """A drawing whose lines have that share of their width."""
    return _WIDTH.sub(lambda m: b'stroke-width="%.3f"' % (float(m[1]) * share), svg)


def filled(svg: bytes) -> NDArray[np.uint8]:
    """A drawing as uint8 [3, 64, 64], cut to what is drawn, as other vendors fill theirs."""
    large = data.sprite(data.drawn(svg, 2 * SIDE), 2 * SIDE)
    inked = np.argwhere((large < 250).any(0))
    if not len(inked):
        return data.sprite(data.drawn(svg))
    (top, left), (bottom, right) = inked.min(0), inked.max(0) + 1
    side = max(bottom - top, right - left) * (1 + 2 * MARGIN)
    x, y = (left + right - side) / 2, (top + bottom - side) / 2
    whole = Image.fromarray(255 - large.transpose(1, 2, 0))
    size, box = (SIDE, SIDE), (x, y, x + side, y + side)
    cut = whole.transform(size, Image.Transform.EXTENT, box, Image.Resampling.BICUBIC)
    return np.ascontiguousarray(255 - np.asarray(cut).transpose(2, 0, 1))
