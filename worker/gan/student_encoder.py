"""The text encoder that ships as a network with gradients, and the file that it becomes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from worker.gan import checkpoint, words
from worker.gan.encoder import ABROAD, EVERYDAY, FILE, FLOOR, NAMES
from worker.gan.networks import TEXT

WIDTH = 96
HIDDEN = 512
CODE = 127  # greatest code of weights and pooled words; hidden codes reach 255


class Student(nn.Module):
    """`encoder.TextEncoder` as a network with gradients. steps: size of a code of the
    pooled words and of the hidden layer, once they are known; from then on it rounds."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(words.BUCKETS, WIDTH)
        nn.init.normal_(self.table.weight, std=1.2 / math.sqrt(WIDTH))
        self.say = nn.Embedding(words.BUCKETS, 1)
        nn.init.zeros_(self.say.weight)
        self.hidden = nn.Linear(2 * WIDTH, HIDDEN)
        self.out = nn.Linear(HIDDEN, TEXT)
        self.steps: tuple[float, float] | None = None

    def pool(self, texts: Sequence[Sequence[tuple[int, ...]]]) -> Tensor:
        """Weighted mean and greatest of the words of each text: [B, 2 * WIDTH]."""
        rows = torch.tensor([row for text in texts for word in text for row in word])
        counts = torch.tensor([len(word) for text in texts for word in text])
        word = torch.arange(len(counts)).repeat_interleave(counts)
        text = torch.arange(len(texts)).repeat_interleave(torch.tensor([len(t) for t in texts]))
        root = counts.float().sqrt()[:, None]
        table, say = self._rounded(self.table.weight, 0), self._rounded(self.say.weight, None)
        sums = _sum(F.embedding(rows, table), word, len(counts)) / root
        u = _sum(F.embedding(rows, say), word, len(counts)) / root
        share = 0.5 + 0.5 * u / (1 + u.abs())
        mean = _sum(sums * share, text, len(texts))
        mean = mean / (_sum(share.square(), text, len(texts)).sqrt() + FLOOR)
        places = text[:, None].expand_as(sums)
        most = torch.full((len(texts), WIDTH), -math.inf).scatter_reduce(0, places, sums, "amax")
        return torch.cat([mean, most], 1)

    def forward(self, texts: Sequence[Sequence[tuple[int, ...]]]) -> Tensor:
        """Unit vectors [B, 384]."""
        pooled = self.pool(texts)
        if self.steps:
            pooled = _codes(pooled, self.steps[0], -CODE, CODE)
        hidden = self.inner(pooled)
        if self.steps:
            hidden = _codes(hidden, self.steps[1], 0, 255)
        return F.normalize(F.linear(hidden, self._rounded(self.out.weight, 1), self.out.bias))

    def inner(self, pooled: Tensor) -> Tensor:
        weight = self._rounded(self.hidden.weight, 1)
        return F.linear(pooled, weight, self.hidden.bias).relu()

    @torch.no_grad()
    def settle(self, texts: Sequence[Sequence[tuple[int, ...]]]) -> None:
        """From now on every value is one of a few codes; these texts tell their range."""
        pooled = self.pool(texts)
        reach = pooled.abs().flatten()[::7].quantile(0.9995).item()
        self.steps = (reach / CODE, self.inner(pooled).max().item() * 1.1 / 255)

    def _rounded(self, weight: Tensor, axis: int | None) -> Tensor:
        return weight if self.steps is None else _codes(weight, scale(weight, axis), -CODE, CODE)


def scale(weight: Tensor, axis: int | None) -> Tensor:
    """The size of one code: for all of a matrix, or for each slice along the other axis."""
    size = weight.detach().abs()
    greatest = size.max() if axis is None else size.amax(axis, keepdim=True)
    return (greatest / CODE).clamp_min(1e-6)


def _codes(values: Tensor, step: Tensor | float, least: int, most: int) -> Tensor:
    """Rounded to codes; gradients pass unchanged (Bengio et al. 2013, section 4)."""
    return values + ((values / step).round().clamp(least, most) * step - values).detach()


def _sum(values: Tensor, places: Tensor, count: int) -> Tensor:
    return torch.zeros(count, values.shape[1]).index_add_(0, places, values)


def pieces(text: str) -> list[tuple[int, ...]]:
    return [words.pieces(word) for word in words.words(text) or ["\0"]]


def save(student: Student, folder: Path) -> None:
    """The file that `encoder.TextEncoder` reads. Raises ValueError before `settle`."""
    if student.steps is None:
        raise ValueError("only a settled student can be saved")
    table, say = student.table.weight.detach(), student.say.weight.detach()
    tensors = {
        "table": _int8(table, scale(table, 0)),
        "table_scale": scale(table, 0)[0],
        "say": _int8(say, scale(say, None))[:, 0],
        "say_scale": scale(say, None).reshape(1),
        "ranges": torch.tensor(student.steps),
    }
    for name, layer in (("hidden", student.hidden), ("out", student.out)):
        weight = layer.weight.detach()
        tensors |= {
            f"{name}.weight": _int8(weight, scale(weight, 1)),
            f"{name}.scale": scale(weight, 1)[:, 0],
            f"{name}.bias": layer.bias.detach(),
        }
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / FILE)


def put_names(
    folder: Path,
    names: Sequence[Sequence[str]],
    everyday: Mapping[str, int],
    abroad: bytes = b"",
) -> None:
    """Puts into the file that `folder` has what things are called: towards the first name of
    each its texts are drawn. everyday: further words, and the number of the thing they mean;
    abroad: what `tongues.pack` made of other languages."""
    tensors = load_file(folder / FILE)
    of_words = [(word, str(place)) for word, place in everyday.items()]
    for name, rows in ((NAMES, names), (EVERYDAY, of_words)):
        lines = "\n".join("\t".join(row) for row in rows)
        tensors[name] = torch.tensor(list(lines.encode()), dtype=torch.uint8)
    tensors[ABROAD] = torch.tensor(list(abroad), dtype=torch.uint8)
    checkpoint.write(folder / FILE, lambda beside: save_file(tensors, beside))


def load(folder: Path) -> Student:
    """The student whose file `folder` has, in float: it has to settle again."""
    given, student = load_file(folder / FILE), Student()
    state = {
        "table.weight": given["table"] * given["table_scale"],
        "say.weight": given["say"][:, None] * given["say_scale"],
    }
    for name in ("hidden", "out"):
        state[f"{name}.weight"] = given[f"{name}.weight"] * given[f"{name}.scale"][:, None]
        state[f"{name}.bias"] = given[f"{name}.bias"]
    student.load_state_dict(state)
    return student


def _int8(weight: Tensor, step: Tensor) -> Tensor:
    return (weight / step).round().clamp(-CODE, CODE).to(torch.int8)
