"""The score that ships: the chance, in [0, 1], that a picture shows what its text says. Static
int8: every sum is one of integers, so a score depends on its own picture and text alone. Reads
the weights and cuts pictures for the network; the convolutions run by torch, or without it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.gan import encoder, pairs, weightfile
from worker.gan.inputs import SIDE, TEXT, Floats
from worker.gan.memory import Dense

FILE = "scorer.safetensors"
REMEDY = "make it with python -m worker.gan.scorer"
DIGITS = 4
CELLS = 12  # three colours of 2x2 pixels
NAMES = "names.weight"  # unit vectors [C, 384] of all names that pictures were taught under
RANGES = "ranges"  # the greatest value of each convolution's output
ZERO, LEVELS = 128, 255  # of cells: the code of 0, and how many steps there are from -1 to 1
SPAN = 6.0  # components of a text, times the root of their number, are cut here
PLACES = 16  # of the last map

Codes = NDArray[np.uint8]
Tensors = dict[str, Floats]
Trunk = Callable[[Codes], Codes]  # cells [N, 12, 16, 16] -> the last map [N, 128, 4, 4]


class Scorer:
    """The logistic of `sharp` times the cosine of what is seen and what is said, plus
    `offset` (`worker.gan.eye`)."""

    def __init__(
        self,
        folder: Path,
        *,
        trunk: Callable[[Tensors], Trunk],
        dense: Callable[[Floats], Dense] = encoder.by_torch,
    ) -> None:
        """Reads `FILE`; raises `errors.Error` naming it when it is missing or damaged. trunk,
        dense: make the convolutions and a layer's product of their weights."""
        path = folder / FILE
        content = weightfile.content(path, REMEDY)
        with weightfile.sound(path, REMEDY):
            tensors = weightfile.decoded(content)
            self._trunk = trunk(tensors)
            steps = 2 * tensors[RANGES][-1] / LEVELS, SPAN / weightfile.CODES
            self._out, self._say = (
                _layer(tensors, name, step, dense)
                for name, step in zip(("out", "say"), steps, strict=True)
            )
            self._sharp, self._offset = float(tensors["sharp"]), float(tensors["offset"])
            self._names = _unit(tensors[NAMES]).astype(np.float32)
            self._called = self._said(self._names)
        self.digest = hashlib.sha256(content).hexdigest()

    def __call__(self, pixels: Codes, texts: Floats, counts: Sequence[int]) -> list[float]:
        """Scores of pictures [N, 64, 64, 3]. counts [N]: how many subjects each has, two of
        which stand side by side; texts [M, 384]: of all of them, in order. A picture of two is
        as good as the worse one."""
        seen, said = self._seen(cells(subjects(pixels, counts))), self._said(texts)
        logits = self._sharp * (seen * said).sum(1) + self._offset
        chances = [round(1 / (1 + math.exp(-value)), DIGITS) for value in logits.tolist()]
        ends = np.cumsum(counts)
        return [min(chances[end - count : end]) for end, count in zip(ends, counts, strict=True)]

    def likeliest(self, pixels: Codes) -> Floats:
        """What pictures [N, 64, 64, 3] show: of each the text [N, 384] that fits it best of the
        names that are known."""
        seen = self._seen(cells(subjects(pixels, [1] * len(pixels))))
        return self._names[[int((self._called @ one).argmax()) for one in seen]]

    def _seen(self, cells: Codes) -> NDArray[np.float64]:
        """Unit vectors [N, 192] of pictures. Mean and greatest value of each channel, on a
        scale of 8 bits again."""
        maps = self._trunk(cells).reshape(len(cells), -1, PLACES).astype(np.int32)
        both = maps.sum(2) + PLACES * maps.max(2)
        return _unit(self._out(np.rint(both / np.float32(2 * PLACES)).astype(np.float32)))

    def _said(self, texts: Floats) -> NDArray[np.float64]:
        """Unit vectors [N, 192] of texts [N, 384]."""
        step = np.float32(SPAN / weightfile.CODES / math.sqrt(TEXT))
        return _unit(self._say(np.rint(texts / step).clip(-weightfile.CODES, weightfile.CODES)))


def convolutions(tensors: Tensors) -> list[tuple[str, bool, float]]:
    """Of each convolution, in order: its name, whether the map is halved before it, and the
    step of its output's codes."""
    places = sorted({int(name.split(".")[1]) for name in tensors if name.startswith("trunk.")})
    halved = [place > before + 1 for before, place in zip((-1, *places), places, strict=False)]
    steps = (tensors[RANGES] / LEVELS).tolist()
    names = [f"trunk.{place}.0" for place in places]
    return list(zip(names, halved, steps, strict=True))


def _layer(
    tensors: Tensors, name: str, step: float, dense: Callable[[Floats], Dense]
) -> Callable[[Floats], Floats]:
    """A dense layer of codes that are `step` apart. Products of 8-bit codes sum below 2**24,
    where float32 is exact."""
    codes, scales = weightfile.codes(tensors[f"{name}.weight"])
    product, bias = dense(codes.T.copy()), tensors[f"{name}.bias"]
    scale = (scales * np.float32(step)).astype(np.float32)
    return lambda given: product(given) * scale + bias


def _unit(vectors: Floats) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    made: NDArray[np.float64] = wide / np.sqrt((wide * wide).sum(1, keepdims=True))
    return made


def subjects(pixels: Codes, counts: Sequence[int]) -> Codes:
    """Small pictures [M, 32, 32, 3], one for each subject: the whole picture at half its size,
    or both halves of one that `pairs.join` made of two, which have that size already."""
    halves = pairs.half(pixels)
    if max(counts) == 1:
        return halves
    found = []
    for picture, half, count in zip(pixels, halves, counts, strict=True):
        middle = picture[SIDE // 4 : SIDE - SIDE // 4]
        found += [half] if count == 1 else [middle[:, : SIDE // 2], middle[:, SIDE // 2 :]]
    return np.stack(found)


def cells(views: Codes) -> Codes:
    """Small pictures [B, 32, 32, 3] as the network takes them: codes [B, 12, 16, 16], the four
    pixels of a cell behind one another for each colour."""
    count, side = len(views), views.shape[1] // 2
    parts = views.reshape(count, side, 2, side, 2, 3).transpose(0, 5, 2, 4, 1, 3)
    return np.ascontiguousarray(parts.reshape(count, CELLS, side, side))
