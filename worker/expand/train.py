"""Teaches the language model to write terse prompts out: `python -m worker.expand.train`.

A low-rank adapter is trained by cross-entropy on the answer's tokens,
L = -sum log p(y_t | y_<t, x), over pairs (name, description). Most are the published names and
tags of emoji, as `worker.gan.data` reads them: a name, or a tag that few share, and the name
with what else it is called. The others are the prompts of `examples/prompts.jsonl` that describe a
thing; its name is the word that they end in before they tell more of it. One in eight is
held out."""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker import command
from worker.expand import lora, weights, words
from worker.expand.expander import ADAPTER

if TYPE_CHECKING:
    from worker.gan.data import Concept

PROMPTS = Path(__file__).parents[2] / "examples" / "prompts.jsonl"
BATCH = 8
RATE = 1e-3
HELD_EVERY = 8
LOOK_EVERY, ASKED = 100, 160  # steps between two looks at so many held-out pairs
_MORE = re.compile(
    r"\b(?:with|in|on|from|for|and|that|of|at|by|without|full|under|over|beside|behind)\b|,"
)
_STYLE = re.compile(r",? (?:noto|twemoji|fluent)\b.*$")
_WORD = re.compile(r"[a-z][a-z-]+")

Pair = tuple[str, str]  # (name, description)


def pairs(emoji: Path, prompts: Path = PROMPTS) -> list[Pair]:
    """All pairs. emoji: the folder that `worker.gan.data` filled."""
    from worker.gan import data

    return sorted({*described(prompts), *tagged(data.load(emoji).concepts)})


def described(path: Path) -> list[Pair]:
    """(name, description) of every prompt that says more than a name."""
    found = []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        text = _STYLE.sub("", row["prompt"])
        name = _MORE.split(text, maxsplit=1)[0].strip().rpartition(" ")[2]
        plain = row.get("wording") == "description" and _WORD.fullmatch(name)
        if plain and len(text.split()) > 2:
            found.append((name, text))
    return found


def tagged(concepts: Sequence[Concept]) -> Iterator[Pair]:
    """A concept's name and its lone tags, each with the name and the tags behind it."""
    for concept in concepts:
        name, text = concept.captions[0], concept.captions[-1]
        if not text.startswith(f"{name}, "):
            continue
        yield name, text
        own = [one for one in concept.captions if one.startswith(f"{name}, ")]
        for tag in {one.removeprefix(f"{name}, ") for one in own} & set(concept.captions):
            yield tag, text if tag in text.split(", ") else f"{text}, {tag}"


def split(found: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Taught and held-out pairs: what a description begins with is in one of them alone."""
    groups = sorted({_group(pair) for pair in found})
    held = set(groups[::HELD_EVERY])
    return [p for p in found if _group(p) not in held], [p for p in found if _group(p) in held]


def _group(pair: Pair) -> str:
    return pair[1].partition(",")[0]


def encoded(tokenizer: Any, batch: Sequence[Pair]) -> dict[str, Any]:
    """Token ids, mask and labels of a batch, padded on the right; only answers are learnt."""
    import torch

    rows, labels = [], []
    for name, text in batch:
        question = tokenizer(words.asked(name)).input_ids
        answer = tokenizer(text + words.ENDED).input_ids
        rows.append(question + answer)
        labels.append([-100] * len(question) + answer)
    width = max(map(len, rows))
    return {
        "input_ids": torch.tensor([row + [0] * (width - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows]),
        "labels": torch.tensor([row + [-100] * (width - len(row)) for row in labels]),
    }


def batches(taught: Sequence[Pair], *, seed: int) -> Iterator[list[Pair]]:
    """Endless, each epoch in an order of its own."""
    chance = random.Random(seed)
    while True:
        order = list(taught)
        chance.shuffle(order)
        yield from (order[n : n + BATCH] for n in range(0, len(order) - BATCH + 1, BATCH))


def loss_of(model: Any, tokenizer: Any, held: Sequence[Pair]) -> float:
    """Cross-entropy in nats a token over whole batches of held-out pairs."""
    import torch

    with torch.no_grad():
        parts = [held[n : n + BATCH] for n in range(0, len(held), BATCH)]
        losses = [model(**encoded(tokenizer, part)).loss.item() * len(part) for part in parts]
    return float(sum(losses)) / len(held)


def train(
    data_dir: Path, found: Sequence[Pair], out: Path, *, minutes: float, steps: int, seed: int
) -> dict[str, Any]:
    """Trains on pairs, of which some are held out, for `steps` or `minutes`, whichever ends first,
    with a rate that falls to zero over the steps; writes the adapter that was best on the
    held-out pairs."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = weights.folder(data_dir)
    tokenizer: Any = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=torch.bfloat16,
    )
    adapter = lora.attach(model, seed=seed)
    optimizer = torch.optim.AdamW(adapter.values(), lr=RATE, weight_decay=0.0)
    taught, held = split(found)
    held = random.Random(0).sample(held, min(ASKED, len(held)))
    told: dict[str, Any] = {"taught": len(taught), "held": len(held), "steps": 0}
    told["before"] = told["best"] = loss_of(model, tokenizer, held)
    begun = time.monotonic()
    for step, batch in enumerate(batches(taught, seed=seed)):
        if step >= steps or time.monotonic() - begun > minutes * 60:
            break
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 10) * (1 - step / steps)
        loss = model(**encoded(tokenizer, batch)).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        told["steps"] = step + 1
        if (step + 1) % LOOK_EVERY == 0 or step + 1 == steps:
            now = loss_of(model, tokenizer, held)
            print(f"step {step + 1} loss {loss.item():.3f} held-out {now:.3f}", flush=True)
            if now < told["best"]:
                told["best"] = now
                out.parent.mkdir(parents=True, exist_ok=True)
                held_now = {k: v.detach().half().contiguous() for k, v in adapter.items()}
                save_file(held_now, str(out))
    return told


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("promptmill-data"))
    parser.add_argument("--emoji", type=Path, default=Path("data/emoji"))
    parser.add_argument("--out", type=Path, default=ADAPTER)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    weights.needed(given.data)
    told = train(
        given.data,
        pairs(given.emoji),
        given.out,
        minutes=given.minutes,
        steps=given.steps,
        seed=given.seed,
    )
    print(json.dumps(told))


if __name__ == "__main__":
    command.run(main)
