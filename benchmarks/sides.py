"""Sides of a comparison that render the same items in turn, round by round: the bare loop
first, then the farm and its peers. A ratio is taken within a round; the median of the rounds
counts, and their range is kept. Each side starts anew in each round, so that none remembers a
prompt or runs beside another."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import truediv
from typing import NamedTuple

from benchmarks import stacks, work
from benchmarks.report import Figure
from promptmill.client import Client

BARE = "bare loop"
PACKINGS = {"tar": 1, "image": 2}  # the share of the images that each is given: one in …
Rates = Mapping[str, Sequence[float]]


class Run(NamedTuple):
    """rate: images a second. durable: what survives a kill or a power cut, and by what."""

    side: str
    rate: float
    durable: str


# Renders `count` images of `model` with prompts of `salt`.
Side = Callable[[str, int, int], Iterator[Run]]


def bare(model: str, count: int, salt: int) -> Iterator[Run]:
    yield Run(BARE, work.elsewhere("benchmarks.work", model, count, salt), "nothing is stored")


def promptmill(stack: str) -> Side:
    """The farm on one stack, submitted over HTTP, in each packing."""

    def side(model: str, count: int, salt: int) -> Iterator[Run]:
        with stacks.stack(stack) as servers, servers.farm(model) as farm:
            client = Client(farm.url)
            client.submit(["warm up"] * (2 * work.BATCH), model=model).wait()
            for turn, (packing, share) in enumerate(PACKINGS.items()):
                fresh, some = len(PACKINGS) * salt + turn, count // share
                seconds = through(client, model, some, fresh, packing)
                yield Run(own(stack, packing), some / seconds, stacks.DURABLE[stack])

    return side


def own(stack: str, packing: str) -> str:
    return f"promptmill, {stack}, {packing}"


def through(client: Client, model: str, count: int, salt: int, packing: str) -> float:
    """Seconds from the first byte of the submission until the job is seen completed."""
    rows = [
        {"prompt": i.prompt, "seed": i.seed, **({"steps": i.steps} if model == "stub" else {})}
        for i in work.items(model, count, salt)
    ]
    begun = time.perf_counter()
    job = client.submit(rows, model=model, packing=packing)
    job.wait()
    took = time.perf_counter() - begun
    if job.refresh().counts.done != count:
        raise SystemExit(f"{model}: {job.counts}")
    return took


def in_turn(
    sides: Sequence[Side], model: str, count: int, rounds: int
) -> tuple[Rates, Mapping[str, str]]:
    """Images a second by side, one a round, the bare loop among them; what is durable."""
    rates: dict[str, list[float]] = defaultdict(list)
    durable: dict[str, str] = {}
    for number in range(rounds):
        for side in sides:
            for name, rate, kept in side(model, count, number):
                print(f"  round {number + 1}, {model}: {name} {rate:,.1f} images/s", flush=True)
                rates[name].append(rate)
                durable[name] = kept
    return rates, durable


def figures(model: str, rates: Rates, aims: Mapping[str, float]) -> list[Figure]:
    """For each side its images a second and, but for the loop, its ratio to the loop."""
    found = []
    for name, each in rates.items():
        found.append(Figure.of_rounds(rate_of(model, name), each, "images/s"))
        if name != BARE:
            ratios = map(truediv, each, rates[BARE])
            found.append(Figure.of_rounds(ratio_of(model, name), ratios, "ratio", aims.get(name)))
    return found


def ahead(model: str, rates: Rates, peers: Sequence[str]) -> list[Figure]:
    """How many times as fast as each peer the farm is, in the packing for many images and in
    that of the peers, a file an image."""
    return [
        Figure.of_rounds(
            f"{model}: {ours} / {peer}",
            map(truediv, rates[ours], rates[peer]),
            "ratio",
            1.0 if packing == "tar" else None,
        )
        for packing in PACKINGS
        for ours in [own("embedded", packing)]
        for peer in peers
    ]


def rate_of(model: str, side: str) -> str:
    """The name of the figure, by which tables find it."""
    return f"{model}: {side}"


def ratio_of(model: str, side: str) -> str:
    return f"{model}: {side} / {BARE}"
