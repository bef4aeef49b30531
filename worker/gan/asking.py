"""What a prompt asks the generator for: one thing or two, in which colours, in whose style. Knows
names, no vectors and no pictures."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from worker.gan import captions, pairs
from worker.gan.naming import Names

RECENT = 2048  # prompts that are remembered: of what is prepared, drawn and scored at a time


@dataclass(frozen=True, slots=True)
class Asked:
    """texts: of each subject, without its colour; colours: of each the key of `colours.PAINTS`
    that it is painted in, or None; style: the vendor's index, if the prompt names one."""

    texts: tuple[str, ...]
    colours: tuple[str | None, ...]
    style: int | None


@functools.lru_cache(RECENT)
def asked(prompt: str, names: Names) -> Asked:
    plain, style = captions.parse(prompt)
    subjects = map(names.coloured, pairs.subjects(plain, names.names, names.abroad))
    texts, colours = zip(*subjects, strict=True)
    return Asked(texts, colours, style)
