"""Images per second through the whole farm (submitted over HTTP, objects written, rows
committed) beside the bare generator loop (the same items from prompt text to encoded picture,
nothing stored) and beside plain Celery with one task an image (object and row durable too).
In turn, several rounds; medians of the ratios. Both stacks, both packings."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence

from benchmarks import sides, stacks, work
from benchmarks.report import Figure, show

PLAIN = "plain Celery, a task an image"
AIMS = {
    "stub": {"embedded": 0.95, "fleet": 0.95},
    "emoji-gan": {"embedded": 0.85, "fleet": 0.6},
}
PLAIN_SHARE = 20  # it gets so many times fewer images: its rate is steady, and slow


def plain_celery(model: str, count: int, salt: int) -> Iterator[sides.Run]:
    rate, durable = work.elsewhere("benchmarks.plain_celery", model, count // PLAIN_SHARE, salt)
    yield sides.Run(PLAIN, rate, durable)


SIDES = (sides.bare, *map(sides.promptmill, stacks.NAMES), plain_celery)


def compare(name: str, others: Mapping[str, sides.Side], *, quick: bool, **settings: str) -> None:
    """The farm beside the loop, plain Celery and `others`, by name; prints the report."""
    rounds, count = (1, 320) if quick else (3, 3200)
    print(f"{name}: {count} images, {rounds} rounds, batches of {work.BATCH}")
    figures: list[Figure] = []
    durable: dict[str, str] = {}
    for model in work.MODELS:
        rates, kept = sides.in_turn([*SIDES, *others.values()], model, count, rounds)
        aims = {sides.own(stack, "tar"): aim for stack, aim in AIMS[model].items()}
        figures += sides.figures(model, rates, aims)
        figures += sides.ahead(model, rates, [PLAIN, *others])
        durable.update(kept)
    show(name, figures, **durable, **settings, images=count, rounds=rounds)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    compare("farm", {}, quick=parser.parse_args(arguments).quick)


if __name__ == "__main__":
    main()
