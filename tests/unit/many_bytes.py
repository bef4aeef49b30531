"""Many prompts of 1 to 256 words, from text to PNG, alone and in shuffled company:
`python -m tests.unit.many_bytes --prompts 10000` says of every form of the model whether each
picture has the same bytes in every batch, at every place, on one and on two threads."""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import time
from collections.abc import Iterator, Sequence
from unittest import mock

import torch

from promptmill.jobs import Item
from worker import encode
from worker.gan import captions, colours, encoder, words
from worker.generators import gan

MOST = 256  # words of a prompt
WORDS = (
    *words.ATTRIBUTES, *(land for land in captions.PEOPLES if " " not in land), *captions.VENDORS,
    "heart", "rocket", "cat", "dog", "flag", "of", "and", "a", "the", "pizza", "Herz", "rotes",
    "chien", "perro", "火箭", "りんご", "сердце", "คนหน้ายิ้ม", "🚀", "👩🏽‍🚀", "🇫🇷", "naïve", "x", "\0", ",",
    "supercalifragilisticexpialidocious", "2024", "…",
)  # fmt: skip
STARTS = (  # of some prompts: a thing in a colour, somebody in a skin tone, two things
    *(f"a {paint} cat" for paint in colours.PAINTS), *(f"thumbs up, {each}" for each in captions.TONES),
    "a dark skinned astronaut", "a red cat and a light skinned boy",
)  # fmt: skip
LARGEST = 32


def items(count: int) -> list[Item]:
    """Prompts of every length, the shortest first; seeds of any size."""
    chance = random.Random(6)
    lengths = [1 + number * MOST // count for number in range(count)]
    told = [chance.choices(WORDS, k=length) for length in lengths]
    for number, said in enumerate(told):
        start = f"{STARTS[number % len(STARTS)]},".split()
        if number % 3 == 2 and len(said) >= len(start):
            said[: len(start)] = start
    return [
        Item(n, n, 0, " ".join(said), chance.getrandbits(63), 64, 64) for n, said in enumerate(told)
    ]


def company(asked: Sequence[Item], chance: random.Random) -> Iterator[list[Item]]:
    """All items, shuffled, in batches of 1 to 32."""
    order = chance.sample(asked, len(asked))
    while order:
        size = chance.randint(1, LARGEST)
        yield order[:size]
        order = order[size:]


def files(model: gan.EmojiGan, batch: Sequence[Item]) -> Iterator[tuple[int, str]]:
    """Index and sha256 of the PNG of each item."""
    for item, pixels in zip(batch, model.generate(batch), strict=True):
        data = encode.encode(
            pixels, item, model=model.name, fingerprint=model.fingerprint, format="png"
        )
        yield item.index, hashlib.sha256(data).hexdigest()


def differences(form: str, count: int) -> list[str]:
    """What is not the same as alone on one thread, in words; empty if the promise holds. Each
    text is read anew."""
    with mock.patch.object(encoder, "RECENT", 0):
        return _differences(form, count)


def _differences(form: str, count: int) -> list[str]:
    model = gan.EmojiGan()
    model.load(device="cpu", quantization=form)
    asked, chance, found = items(count), random.Random(7), []
    torch.set_num_threads(1)
    alone = dict(pair for item in asked for pair in files(model, [item]))
    if len(set(alone.values())) != count:
        found.append(f"{count - len(set(alone.values()))} items share their bytes")
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for batch in company(asked, chance):
                found += [
                    f"item {index} in a batch of {len(batch)}, {threads} threads"
                    for index, digest in files(model, batch)
                    if digest != alone[index]
                ]
    finally:
        torch.set_num_threads(1)
        model.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--forms", nargs="+", default=list(gan.ON_CPU))
    options = parser.parse_args()
    for form in options.forms:
        begun = time.monotonic()
        found = differences(form, options.prompts)
        told = {"form": form, "prompts": options.prompts, "differences": len(found)}
        seconds = round(time.monotonic() - begun)
        print(json.dumps({**told, "first": found[:5], "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
