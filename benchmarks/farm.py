"""Images per second through the whole farm (submitted over HTTP, objects written, rows
committed) beside the bare generator loop (the same items from prompt text to encoded picture,
nothing stored) and beside plain Celery with one task an image (object and row durable too).
In turn, several rounds; medians of the ratios. Both stacks, both packings."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from benchmarks import sides, stacks, work
from benchmarks.report import show

PLAIN = "plain Celery, a task an image"
DURABLE = {
    sides.BARE: "nothing is stored",
    **{
        sides.own(stack, packing): f"{stacks.DURABILITY[stack]}; jobs in the database"
        for stack in stacks.NAMES
        for packing in sides.PACKINGS
    },
    PLAIN: "files with fsync, SQLite synchronous=FULL; a message an image in Valkey, "
    "appendfsync everysec, acknowledged late",
}
AIMS = {
    "stub": {"embedded": 0.95, "fleet": 0.95},
    "emoji-gan": {"embedded": 0.85, "fleet": 0.6},
}
PLAIN_SHARE = 20  # it gets so many times fewer images: its rate is steady, and slow


def plain_celery(model: str, count: int, salt: int) -> Iterator[tuple[str, float]]:
    yield PLAIN, work.elsewhere("benchmarks.plain_celery", model, count // PLAIN_SHARE, salt)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args(arguments).quick
    rounds, count = (1, 320) if quick else (3, 3200)
    print(
        f"the farm beside the bare loop: {count} images, {rounds} rounds, batches of {work.BATCH}"
    )
    every = (sides.bare, *map(sides.promptmill, stacks.NAMES), plain_celery)
    figures = []
    for model in work.MODELS:
        rates = sides.in_turn(every, model, count, rounds)
        aims = {sides.own(stack, "tar"): aim for stack, aim in AIMS[model].items()}
        figures += sides.figures(model, rates, aims)
        figures += sides.ahead(model, rates, sides.own("embedded", "tar"), [PLAIN])
    show("farm", figures, **DURABLE, images=count, rounds=rounds)


if __name__ == "__main__":
    main()
