"""The text encoder that ships: a prompt in any language to a unit vector, from one int8
table of hashed word pieces and two small dense layers, drawn towards the nearest name of
what the generator knows. All sums run over integers that float32 holds exactly, so a vector's
bits depend on its prompt alone."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from worker.gan import memory, weightfile, words
from worker.gan.memory import Dense, Floats
from worker.gan.naming import Names
from worker.gan.tongues import Tongues

FILE = "encoder.safetensors"
REMEDY = "make it with python -m worker.gan.distil"
RECENT = 2048  # prompts that are remembered: of what is prepared, drawn and scored at a time
FLOOR = 0.1  # keeps the weighted mean of a prompt without words finite
NAMES = "names"  # the tensor that holds them: UTF-8, what one thing is called on a line, by tabs
ABROAD = "abroad"  # what `tongues.pack` made of the names in other languages
EVERYDAY = "everyday"  # the same: on a line a word of every day and the number of its thing


def by_torch(weights: Floats) -> Dense:
    """The product by torch, whose threads the worker has bounded: numpy's library would wake
    one for each core, and they spin for longer than this product takes."""
    import torch

    kept = torch.from_numpy(weights)

    def product(codes: Floats) -> Floats:
        made: Floats = (torch.from_numpy(codes) @ kept).numpy()
        return made

    return product


@dataclass(frozen=True, slots=True)
class Skin:
    """The number of a skin tone, and the vector [384] of who has it, without one."""

    tone: int
    plain: Floats


@dataclass(frozen=True, slots=True)
class Recalled:
    """A prompt's vector [384], the number of what it is drawn towards, the skin tone that it tells
    of, and whether it is drawn as what keeps its own colours, as people and flags do."""

    vector: Floats
    place: int = -1
    skin: Skin | None = None
    own: bool = False


class TextEncoder:
    """Prompts to unit-length vectors [N, 384].

    A word is the sum of its pieces' rows over the root of their number; a prompt is the
    mean of its words, each weighted by a learned say of its own (so that "please" weighs
    less than "rocket"), beside their greatest value in each component; two dense layers
    make the vector. It was distilled from a sentence encoder (`worker.gan.distil`). A file that
    has names (`NAMES`) gives the vector its part of the nearest thing's (`worker.gan.memory`),
    which a word of every day may find. `naming` knows what all things are called.

    Bits: products of 8-bit codes sum below 2**24, where float32 is exact in any order, so
    neither the batch nor the number of threads can change them; what follows is done
    component by component.
    """

    def __init__(self, folder: Path, *, dense: Callable[[Floats], Dense] = by_torch) -> None:
        """Reads `FILE`; raises `errors.Error` naming it when it is missing or damaged. dense:
        makes a layer's product of its weights."""
        path = folder / FILE
        data = weightfile.content(path, REMEDY)
        with weightfile.sound(path, REMEDY):
            t = load(data)
            self._table, self._table_scale = t["table"], t["table_scale"]
            self._say = t["say"]
            self._say_scale = np.float32(t["say_scale"][0])
            self._layers = [
                (
                    dense(t[f"{name}.weight"].astype(np.float32).T.copy()),
                    t[f"{name}.scale"],
                    t[f"{name}.bias"],
                )
                for name in ("hidden", "out")
            ]
            self._steps = [np.float32(step) for step in t["ranges"]]
            called, other = _lines(t, NAMES), _lines(t, EVERYDAY)
            abroad = Tongues(bytes(t[ABROAD]) if ABROAD in t else b"")
            self.naming = Names(called, {word: int(place) for word, place in other}, abroad)
        self._memory = self.naming.memory(self.read, dense) if called else None
        self.digest = hashlib.sha256(data).hexdigest()
        self._recent: dict[str, Recalled] = {}
        self._changing = threading.Lock()

    def encode(self, prompts: Sequence[str]) -> Floats:
        """Vectors float32 [N, 384] of the prompts, in order. Thread-safe."""
        return np.stack([one.vector for one in self.recall(prompts)])

    def recall(self, prompts: Sequence[str]) -> list[Recalled]:
        """What is made of the prompts, in order. Thread-safe."""
        with self._changing:
            known = {prompt: self._recent[prompt] for prompt in prompts if prompt in self._recent}
        fresh = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
        if fresh:
            made = dict(zip(fresh, self._recalled(fresh), strict=True))
            self._remember(made)
            known |= made
        return [known[prompt] for prompt in prompts]

    def places(self, prompts: Sequence[str]) -> list[int]:
        """The numbers of what prompts are drawn towards, by an encoder that has names."""
        return [one.place for one in self.recall(prompts)]

    def _remember(self, made: Mapping[str, Recalled]) -> None:
        with self._changing:
            self._recent |= made
            for oldest in list(self._recent)[: max(0, len(self._recent) - RECENT)]:
                del self._recent[oldest]

    def _recalled(self, prompts: Sequence[str]) -> list[Recalled]:
        if self._memory is None:
            return list(map(Recalled, self.read(prompts)))
        prompts = [words.neutral(prompt, self.naming.names) for prompt in prompts]
        bare = {row: text for row, text in enumerate(map(words.bare, prompts)) if text}
        read = self.read([*prompts, *bare.values()])  # at once: a product's price is its weights'
        plainer = dict(zip(bare, read[len(prompts) :], strict=True))
        cues = [self.naming.cue(prompt, plainer.get(row)) for row, prompt in enumerate(prompts)]
        vectors, places = self._memory.recalled(read[: len(prompts)], cues)
        return [
            Recalled(vector, place, self._skin(self._memory, place), place in self.naming.own)
            for vector, place in zip(vectors, places.tolist(), strict=True)
        ]

    def _skin(self, kept: memory.Memory, place: int) -> Skin | None:
        found = self.naming.skins.get(place)
        return None if found is None else Skin(found[1], kept.name(found[0]))

    def read(self, prompts: Sequence[str]) -> Floats:
        """What the words say, [N, 384], before any name draws it."""
        pooled = np.stack([self._pool(prompt) for prompt in prompts])
        (inner, inner_scale, inner_bias), (outer, outer_scale, outer_bias) = self._layers
        step, inner_step = self._steps
        codes = np.rint(pooled / step).clip(-127, 127)
        hidden = inner(codes) * (step * inner_scale) + inner_bias
        codes = np.rint(hidden / inner_step).clip(0, 255)
        found = outer(codes) * (inner_step * outer_scale) + outer_bias
        return memory.unit(found)

    def _pool(self, prompt: str) -> Floats:
        """The prompt's words as one vector [2 * width]: weighted mean, then greatest."""
        pieces = [words.pieces(word) for word in words.words(prompt) or ["\0"]]
        rows = np.fromiter((row for piece in pieces for row in piece), np.intp)
        counts = np.array([len(piece) for piece in pieces])
        starts = counts.cumsum() - counts
        root = np.sqrt(counts.astype(np.float32))[:, None]
        sums = np.add.reduceat(self._table[rows], starts, axis=0, dtype=np.int32)
        said = np.add.reduceat(self._say[rows], starts, dtype=np.int32)[:, None]
        word = sums * self._table_scale / root
        u = said * self._say_scale / root
        say = np.float32(0.5) + np.float32(0.5) * u / (1 + np.abs(u))
        mean = (word * say).sum(0) / (np.sqrt(np.square(say).sum()) + np.float32(FLOOR))
        pooled: Floats = np.concatenate([mean, word.max(0)]).astype(np.float32)
        return pooled


def _lines(tensors: Mapping[str, NDArray[Any]], name: str) -> list[list[str]]:
    """The lines of a text that a file's tensor holds, if it does, each cut at its tabs."""
    text = bytes(tensors[name]).decode() if name in tensors else ""
    return [line.split("\t") for line in text.splitlines()]
