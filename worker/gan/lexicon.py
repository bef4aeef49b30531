"""The texts of training as vectors: every caption, sentence and foreign name of a concept,
embedded once by the encoder that ships."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from worker.gan import captions, checkpoint, corpus, data, frames
from worker.gan.encoder import TextEncoder

CHUNK = 4096
SENTENCES, SHARE = 40, 120.0  # of a concept, and their weight: three texts of ten that are drawn
FRAMES = 8192


@dataclass(frozen=True, slots=True)
class Lexicon:
    """text [M, 384] float16, a run of rows for each concept; spans int64 [C, 2]: first row
    and count; odds [M]: how often a row is drawn within its concept; named [C, 384]: the
    plain names; around [F, 384]: what people write around a name, without one."""

    text: Tensor
    spans: Tensor
    odds: Tensor
    named: Tensor
    around: Tensor


@dataclass(frozen=True, slots=True)
class Lessons:
    """Pictures, the texts that mean them, and the encoder that read those."""

    pictures: data.Dataset
    texts: Lexicon
    encoder: TextEncoder


def lessons(
    folder: Path,
    encoder: TextEncoder,
    *,
    seed: int,
    name: str = data.EMOJI,
    vocabulary: Sequence[str] = (),
) -> Lessons:
    """The set that `worker.gan.data` built in `folder`, read by `encoder`. vocabulary: words of
    which some may stand among those around a name."""
    dataset = data.load(folder, name)
    amid = corpus.plain(dataset.concepts, vocabulary)
    return Lessons(dataset, _kept(folder, dataset, encoder, seed=seed, amid=amid), encoder)


def _kept(
    folder: Path, dataset: data.Dataset, encoder: TextEncoder, *, seed: int, amid: Sequence[str]
) -> Lexicon:
    """`read`, or what it gave before for this data, encoder and seed: it takes a minute."""
    names = "\n".join(caption for one in dataset.concepts for caption in one.captions)
    made_of = (encoder.digest, seed, SENTENCES, SHARE, FRAMES, names, *amid)
    known = hashlib.sha256("\n".join(map(str, made_of)).encode()).hexdigest()
    path = folder / f"lexicon-{known[:16]}.safetensors"
    if path.exists():
        return Lexicon(**load_file(path))
    made = read(folder, dataset, encoder, seed=seed, amid=amid)
    parts = {field.name: getattr(made, field.name).contiguous() for field in fields(made)}
    checkpoint.write(path, lambda beside: save_file(parts, beside))
    return made


def read(
    folder: Path,
    dataset: data.Dataset,
    encoder: TextEncoder,
    *,
    seed: int,
    amid: Sequence[str] = (),
) -> Lexicon:
    """The texts of `dataset`, which `folder` holds, in an order that the seed decides."""
    chance = random.Random(seed)
    chosen = dataset.concepts
    given = [
        *corpus.english(chosen, chance, sentences=SENTENCES, share=SHARE),
        *corpus.foreign(chosen, data.languages_of(folder)),
        *corpus.pictographs(chosen),
    ]
    mine: list[list[corpus.Text]] = [[] for _ in chosen]
    for text in given:
        if text.concept is not None:
            mine[text.concept].append(text)
    counts = torch.tensor([len(texts) for texts in mine])
    return Lexicon(
        embed(encoder, [text.text for texts in mine for text in texts]).half(),
        torch.stack([counts.cumsum(0) - counts, counts], 1),
        torch.cat([_odds(texts) for texts in mine]),
        embed(encoder, [captions.names(concept.label, ())[0] for concept in chosen]),
        embed(encoder, [" ".join(frames.frame(chance, amid)) for _ in range(FRAMES)]),
    )


def embed(encoder: TextEncoder, texts: Sequence[str]) -> Tensor:
    """Vectors [N, 384] of the texts, in order."""
    parts = [texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK)]
    return torch.cat([torch.from_numpy(encoder.encode(part)) for part in parts])


def _odds(texts: Sequence[corpus.Text]) -> Tensor:
    """The plain name, which comes first, a fifth of the time; else as texts are weighted."""
    weights = torch.tensor([text.weight for text in texts])
    weights[0] += weights.sum() / 4
    return weights
