"""Exports: how far one is, out of what its shards hold."""

from __future__ import annotations

import pytest

from promptmill.exports import File, Format, Kind
from promptmill.store import control, export_plans, export_shards, exports, images
from promptmill.store.database import Database
from promptmill.store.exports import Progress
from tests.contract import store_kit as kit

pytestmark = pytest.mark.servers


def files(*sizes: int) -> list[File]:
    return [File(f"{size}.tar", f"exports/{size}.tar", size, "00" * 32) for size in sizes]


def plan(db: Database, export_id: int) -> None:
    assert export_plans.find_columns(db, export_id, stopped=lambda: False)
    while export_plans.plan(db, export_id, images.SegmentCache()):
        pass


def test_progress_is_the_sum_over_sealed_shards(db: Database) -> None:
    job = kit.submit(db, 25)
    kit.commit(db, [kit.done(work) for work in kit.fetch(db, job)])
    other, export = (
        exports.create(db, job, Format.PARQUET, shard_images=size, reuse=False) for size in (25, 10)
    )
    assert exports.progress(db, export.id) == Progress(0, 0, 0, 0, 0)
    plan(db, export.id)
    assert exports.progress(db, export.id) == Progress(0, 3, 0, 0, 0)
    held = [export_shards.claim(db, "w", seconds=60.0) for _ in range(3)]
    shards = [one[1] for one in held if one]
    big = 3 << 30  # more than 32 bits hold
    assert export_shards.seal(db, shards[0], files(big, 5), {"successes": 8, "failed": 2})
    assert export_shards.seal(db, shards[1], files(7), {"successes": 10, "failed": 0})
    assert exports.progress(db, export.id) == Progress(2, 3, 18, 2, big + 12)
    assert export_shards.seal(db, shards[2], files(1), {"successes": 5, "failed": 0})
    control.finish_ready(db)
    plan(db, export.id)
    card = export_shards.claim(db, "w", seconds=60.0)
    assert card is not None and card[1].kind is Kind.CARD
    assert export_shards.seal(db, card[1], files(100), {})
    assert exports.progress(db, export.id) == Progress(3, 3, 23, 2, big + 113), "a card has bytes"
    assert exports.progress(db, other.id) == Progress(0, 0, 0, 0, 0)


@pytest.mark.parametrize("digits", ["9" * 9, "9" * 25, "9" * 5_000])
def test_a_file_of_a_number_that_no_shard_has_is_not_found(db: Database, digits: str) -> None:
    job = kit.submit(db, 1)
    export = exports.create(db, job, Format.WEBDATASET, shard_images=1, reuse=False)
    assert exports.find_file(db, export, f"data/train-{digits}.tar") is None
