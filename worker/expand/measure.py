"""What prompt expansion is worth to `emoji-gan`: `python -m worker.expand.measure` prints one line
of JSON. It needs the language model, the data set and the judge (docs/training.md)."""

from __future__ import annotations

import argparse
import functools
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from worker import command
from worker.expand import train, weights, words
from worker.expand.expander import ADAPTER, Expander
from worker.expand.writer import Writer
from worker.gan import agreement, data, panel
from worker.gan.encoder import TextEncoder
from worker.gan.panel import Panel

TERSE = 200
LONGEST = 2  # words of a terse prompt
SEEDS = range(3)


def terse(emoji: Path) -> list[tuple[str, int]]:
    """(prompt, concept) of names and lone tags whose descriptions the adapter never learned."""
    concepts = data.concepts_of(emoji)
    place = {concept.captions[0]: number for number, concept in enumerate(concepts)}
    _, held = train.split(train.pairs(emoji))
    found = [
        (name, place[text.partition(",")[0]])
        for name, text in held
        if text.partition(",")[0] in place and len(name.split()) <= LONGEST
    ]
    chosen = sorted(set(found))
    return random.Random(0).sample(chosen, min(TERSE, len(chosen)))


def figures(
    drawn: Callable[[Sequence[str], int], Tensor],
    seen: Panel,
    named: Tensor,
    expander: Expander,
    asked: list[tuple[str, int]],
) -> dict[str, float]:
    """drawn: pictures of prompts by a seed; named [C, 384]: the judge's vectors of the names among
    which it chooses. rank1, rank5: its agreement with pictures of the prompts as they are and, with
    expanded_ before, as they are written out, mean over three seeds; changed: share of the prompts
    that were; kept: share of which every word that means something is in the text."""
    prompts, wanted = [prompt for prompt, _ in asked], torch.tensor([n for _, n in asked])
    written = expander.expand(prompts)
    told: dict[str, float] = {}
    for kind, texts in (("", prompts), ("expanded_", written)):
        made = [drawn(texts, seed) for seed in SEEDS]
        ranks = [panel.ranks(seen.vectors(one), named, wanted) for one in made]
        for k in (1, 5):
            told[f"{kind}rank{k}"] = (torch.stack(ranks) < k).float().mean().item()
    both = list(zip(prompts, written, strict=True))
    told["changed"] = sum(text != prompt for prompt, text in both) / len(both)
    told["kept"] = sum(words.holds(text, prompt) for prompt, text in both) / len(both)
    return told


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("promptmill-data"))
    parser.add_argument("--emoji", type=Path, default=Path("data/emoji"))
    parser.add_argument("--judge", type=Path, nargs="+", default=[Path("data/judge")])
    parser.add_argument("--encoder", type=Path, default=Path("worker/weights/emoji-gan"))
    parser.add_argument("--network", type=Path, default=Path("worker/weights/emoji-gan/student"))
    parser.add_argument("--adapter", type=Path, default=ADAPTER)
    parser.add_argument("--show", type=int, default=0, help="texts to print before the figures")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    digest = weights.needed(options.data)
    adapter = options.adapter if options.adapter.exists() else None
    expander = Expander(Writer(weights.folder(options.data), digest=digest, adapter=adapter))
    asked, seen = terse(options.emoji), panel.read(options.judge)
    encoder, network = TextEncoder(options.encoder), agreement.shipped(options.network)
    drawn = functools.partial(agreement.pictures, network, encoder)
    named = seen.named[: len(data.concepts_of(options.emoji))]
    told = figures(drawn, seen, named, expander, asked)
    prompts = [prompt for prompt, _ in asked[: options.show]]
    for prompt, text in zip(prompts, expander.expand(prompts), strict=True):
        print(f"{prompt} -> {text}")
    print(json.dumps({name: round(value, 4) for name, value in told.items()}))


if __name__ == "__main__":
    command.run(main)
