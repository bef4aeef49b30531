"""Receiving: idempotency keys, epochs and heartbeats, limits, and nothing left behind."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial

import pytest

from promptmill import errors
from promptmill.jobs import JobState, Priority
from promptmill.records import LaneSpec, Output, Replay, Segment, Upload
from promptmill.store import control, images, jobs, submissions, tenants
from promptmill.store.database import Database
from tests.contract import store_kit as kit

pytestmark = pytest.mark.servers


def test_a_submission_comes_back_whole(db: Database) -> None:
    job = kit.submit(
        db,
        2500,
        name="grüße",
        priority=Priority.BULK,
        seed=2**53 - 1,
        defaults={"steps": 4, "nested": {"a": [1, None]}},
        output=Output("webp", "tar", "team/a"),
        metadata={"k": "v"},
        webhook="http://hook",
        fingerprint="pin",
        expires_at=99.5,
        recipe={"template": "{a}", "variables": {"a": ["x"]}},
    )
    assert job == kit.now(db, job)
    assert job.state is JobState.QUEUED
    assert (job.name, job.priority, job.seed, job.version) == ("grüße", Priority.BULK, 2**53 - 1, 1)
    assert (job.defaults, job.metadata) == ({"steps": 4, "nested": {"a": [1, None]}}, {"k": "v"})
    assert (job.output, job.webhook, job.fingerprint) == (
        Output("webp", "tar", "team/a"),
        "http://hook",
        "pin",
    )
    assert (job.expires_at, job.recipe) == (99.5, {"template": "{a}", "variables": {"a": ["x"]}})
    assert (job.counts.total, job.counts.done, job.generation) == (2500, 0, 0)
    assert job.public_id.startswith("job_") and len(job.public_id) == 24
    works = kit.fetch(db, job)
    assert [work.item for work in works] == kit.items(2500)
    assert (works[7].model, works[7].pinned, works[7].output.packing) == ("stub", "pin", "tar")


def test_a_job_that_is_being_received_is_neither_listed_nor_rendered(db: Database) -> None:
    upload = kit.begin(db)
    kit.fill(db, upload, kit.items(10))
    assert jobs.page(db, 1, after=None, limit=10) == ([], False)
    assert control.open_jobs(db, "stub") == []
    job = jobs.get(db, 1, upload.public_id)
    assert (job.state, job.counts.total) == (JobState.RECEIVING, 10)
    with pytest.raises(errors.NotFound):
        images.get(db, job, 0)
    with pytest.raises(errors.IllegalTransition):
        jobs.cancel(db, 1, upload.public_id)


def test_a_key_whose_upload_lives_is_in_progress(db: Database) -> None:
    kit.begin(db, key="k")
    with pytest.raises(errors.InProgress) as caught:
        kit.begin(db, key="k")
    assert caught.value.retry_after is not None and 1 <= caught.value.retry_after <= 30


def test_a_finished_key_is_replayed(db: Database) -> None:
    job = kit.submit(db, 3, key="k")
    replay = submissions.begin(db, kit.HEAD, idempotency_key="k")
    assert replay == Replay(job.public_id, "hash")
    other, _ = tenants.create_key(db, "other")
    assert other.startswith("key_")
    theirs = submissions.begin(db, replace(kit.HEAD, tenant_id=2), idempotency_key="k")
    assert isinstance(theirs, Upload)


def test_a_silent_upload_is_taken_over(db: Database) -> None:
    first = kit.begin(db, key="k")
    kit.fill(db, first, kit.items(3000, "old"), 2)
    second = submissions.begin(
        db, replace(kit.HEAD, name="second"), idempotency_key="k", silent_after=0.0
    )
    assert isinstance(second, Upload)
    assert (second.job_id, second.epoch) == (first.job_id, 1)
    assert kit.everything(db)["segments"] == kit.everything(db)["row_map"] == 0
    for late in (
        lambda: kit.fill(db, first, kit.items(3)),
        lambda: submissions.beat(db, first),
        lambda: submissions.finish(db, first, [], total=0, request_hash="", max_queued=None),
    ):
        with pytest.raises(errors.Conflict):
            late()
    submissions.abandon(db, first)  # it is not its own any more: nothing happens
    specs = kit.fill(db, second, kit.items(5, "new"))
    job = submissions.finish(db, second, specs, total=5, request_hash="h", max_queued=None)
    assert (job.name, job.counts.total) == ("second", 5)
    assert [w.item.prompt for w in kit.fetch(db, job)] == [f"new {i}" for i in range(5)]


def test_a_heartbeat_keeps_the_key(db: Database) -> None:
    upload = kit.begin(db, key="k")
    assert submissions.stale(db, -1.0) == [upload]
    assert submissions.stale(db, 30.0) == []
    submissions.beat(db, upload)
    with pytest.raises(errors.InProgress):
        kit.begin(db, key="k")


def test_an_abandoned_upload_leaves_nothing_and_frees_the_key(db: Database) -> None:
    before = kit.everything(db)
    upload = kit.begin(db, key="k")
    kit.fill(db, upload, kit.items(3000), 3)
    submissions.abandon(db, upload, clear=lambda: None)
    assert kit.everything(db) == before
    assert kit.submit(db, 2, key="k").state is JobState.QUEUED


def test_of_many_at_once_one_gets_the_key(db: Database) -> None:
    got: list[object] = []

    def begin() -> None:
        try:
            got.append(submissions.begin(db, kit.HEAD, idempotency_key="k"))
        except errors.InProgress as busy:
            got.append(busy)

    running = [threading.Thread(target=begin) for _ in range(5)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
    assert sorted(type(one).__name__ for one in got) == ["InProgress"] * 4 + ["Upload"]


def test_a_limit_refuses_and_leaves_the_upload_to_be_abandoned(db: Database) -> None:
    kit.submit(db, 8)
    upload = kit.begin(db)
    specs = kit.fill(db, upload, kit.items(3))
    assert tenants.queued_images(db, 1) == 11
    with pytest.raises(errors.LimitExceeded) as caught:
        submissions.finish(db, upload, specs, total=3, request_hash="h", max_queued=10)
    assert caught.value.retry_after
    job = submissions.finish(db, upload, specs, total=3, request_hash="h", max_queued=11)
    kit.commit(db, [kit.done(work) for work in kit.fetch(db, job)])
    assert tenants.queued_images(db, 1) == 8


def test_more_than_64_lanes_and_missing_segments_are_refused(db: Database) -> None:
    upload = kit.begin(db)
    specs = kit.fill(db, upload, kit.items(10))
    many = [LaneSpec(n, str(n), 0.1, 1) for n in range(65)]
    with pytest.raises(errors.BadRequest, match="64"):
        submissions.finish(db, upload, many, total=65, request_hash="h", max_queued=None)
    for wrong, total in ((specs, 11), ([LaneSpec(0, "b", 0.1, 11)], 11), ([], 0)):
        with pytest.raises(errors.Internal, match="segments"):
            submissions.finish(db, upload, wrong, total=total, request_hash="h", max_queued=None)
    assert jobs.get(db, 1, upload.public_id).state is JobState.RECEIVING


@pytest.mark.parametrize("lanes", [1, 3])
def test_what_was_not_written_before_is_written_with_the_end(db: Database, lanes: int) -> None:
    """One transaction: an end that is refused leaves none of it."""
    rows, specs = kit.items(5000), kit.specs_of(5000, lanes)
    parts, blocks = kit.parts(rows, lanes)
    upload = kit.begin(db)
    submissions.write(db, upload, parts[:1], blocks[:2])
    finish = partial(submissions.finish, db, upload, specs, total=5000, request_hash="h")
    for lacking in (parts[2:], [*parts[1:-2], parts[-1]]):
        with pytest.raises(errors.Internal, match="segments"):
            finish(lacking, blocks[2:], max_queued=None)
    with pytest.raises(errors.LimitExceeded):
        finish(parts[1:], blocks[2:], max_queued=4999)
    assert kit.everything(db)["segments"] == 1
    assert kit.everything(db)["row_map"] == len(blocks[:2])
    job = finish(parts[1:], blocks[2:], max_queued=None)
    assert sorted(w.item.index for w in kit.fetch(db, job)) == list(range(5000))


def test_a_segment_out_of_place_is_refused(db: Database) -> None:
    upload = kit.begin(db)
    with pytest.raises(errors.Internal):
        submissions.write(db, upload, [Segment(0, 1, 5, 10, b"")], [])
    assert kit.everything(db)["segments"] == 0
