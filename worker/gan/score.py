"""The score that ships: the chance, in [0, 1], that a picture shows what its text says. Reads
the weights, cuts pictures for the network and keeps to its one shape; without torch, which is
one of the two ways to run it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from promptmill import errors
from worker.gan import pairs
from worker.gan.inputs import SIDE, Floats

FILE = "scorer.safetensors"
ROWS = 4  # the one batch shape that it runs: one picture waits for no more than three
DIGITS = 4
CELLS = 12  # three colours of 2x2 pixels

Tensors = Mapping[str, Floats]
Sight = Callable[[Floats, Floats], Floats]  # cells [4, 12, 16, 16], texts [4, 384] -> logits [4]


def by_torch(tensors: Tensors) -> Sight:
    """The network by torch, on the threads that the worker gave it."""
    import torch

    from worker.gan.eye import Eye

    network = Eye(normed=False).eval().requires_grad_(False)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def logits(cells: Floats, texts: Floats) -> Floats:
        seen = torch.from_numpy(cells).contiguous(memory_format=torch.channels_last)
        made: Floats = network(seen, torch.from_numpy(texts)).numpy()
        return made

    return logits


class Scorer:
    """Four rows at a time, the last repeated where some are missing: float kernels choose
    their order of summation by shape, and so a score depends on its own picture and text
    alone."""

    def __init__(self, folder: Path, *, sight: Callable[[Tensors], Sight] = by_torch) -> None:
        """Reads `FILE`; raises `errors.Error` naming it when it is missing or damaged. sight:
        makes the network of its weights."""
        path = folder / FILE
        try:
            content = path.read_bytes()
            self._sight = sight({k: v.astype(np.float32) for k, v in load(content).items()})
        except OSError as problem:
            raise errors.Error(
                f"{path} cannot be read ({problem.strerror}): reinstall promptmill, or make it "
                "with python -m worker.gan.scorer"
            ) from problem
        except (SafetensorError, KeyError, RuntimeError) as problem:
            raise errors.Error(
                f"{path} is damaged: reinstall promptmill, or make it with "
                "python -m worker.gan.scorer"
            ) from problem
        self.digest = hashlib.sha256(content).hexdigest()

    def __call__(
        self, pixels: NDArray[np.uint8], texts: Floats, counts: Sequence[int]
    ) -> list[float]:
        """Scores of pictures [N, 64, 64, 3]. counts [N]: how many subjects each has, two of
        which stand side by side; texts [M, 384]: of all of them, in order. A picture of two is
        as good as the worse one."""
        views = subjects(pixels, counts)
        starts = range(0, len(views), ROWS)
        chances = [
            chance
            for at in starts
            for chance in self._run(views[at : at + ROWS], texts[at : at + ROWS])
        ]
        ends = np.cumsum(counts)
        return [min(chances[end - count : end]) for end, count in zip(ends, counts, strict=True)]

    def _run(self, views: NDArray[np.uint8], texts: Floats) -> list[float]:
        missing = ROWS - len(views)
        full = np.concatenate([views, np.repeat(views[-1:], missing, axis=0)])
        said = np.concatenate([texts, np.repeat(texts[-1:], missing, axis=0)])
        logits = self._sight(cells(full), said)[: len(views)]
        return [round(1 / (1 + math.exp(-value)), DIGITS) for value in logits.tolist()]


def subjects(pixels: NDArray[np.uint8], counts: Sequence[int]) -> NDArray[np.uint8]:
    """Small pictures [M, 32, 32, 3], one for each subject: the whole picture at half its size,
    or both halves of one that `pairs.join` made of two, which have that size already."""
    found = []
    for picture, count in zip(pixels, counts, strict=True):
        if count == 1:
            found.append(pairs.half(picture[None])[0])
        else:
            middle = picture[SIDE // 4 : SIDE - SIDE // 4]
            found += [middle[:, : SIDE // 2], middle[:, SIDE // 2 :]]
    return np.stack(found)


def cells(views: NDArray[np.uint8]) -> Floats:
    """Small pictures [B, 32, 32, 3] as the network takes them: [B, 12, 16, 16] in [-1, 1], the
    four pixels of a cell behind one another for each colour."""
    count, side = len(views), views.shape[1] // 2
    parts = views.reshape(count, side, 2, side, 2, 3).transpose(0, 5, 2, 4, 1, 3)
    whole = parts.reshape(count, CELLS, side, side)
    return np.ascontiguousarray(whole, dtype=np.float32) / np.float32(127.5) - np.float32(1)
