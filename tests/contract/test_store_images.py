"""Images: fetching what is still to be rendered, pages at any depth, gaps and provenance."""

from __future__ import annotations

from dataclasses import replace

import pytest

from promptmill import errors, models
from promptmill.jobs import ImageState, JobState
from promptmill.leases import Incident, LeasedSpan, Span
from promptmill.records import Job
from promptmill.store import control, images, jobs
from promptmill.store import models as stored_models
from promptmill.store.database import Database
from tests.contract import store_kit as kit

pytestmark = pytest.mark.servers


def test_fetch_skips_what_is_terminal_closed_or_old(db: Database) -> None:
    one, other, gone = kit.submit(db, 1500), kit.submit(db, 20), kit.submit(db, 5)
    (lane,), (lane2,), (lane3,) = (jobs.lanes(db, job.id) for job in (one, other, gone))
    cache = images.SegmentCache()
    spans = [
        LeasedSpan(lane.id, one.id, 0, 1020, 8, 2),  # across two segments
        LeasedSpan(lane2.id, other.id, 0, 3, 2, 0),
        LeasedSpan(lane3.id, gone.id, 0, 0, 5, 0),
        LeasedSpan(lane.id, one.id, 1, 0, 5, 0),  # of a generation that is not
    ]
    jobs.cancel(db, 1, gone.public_id)
    works = images.fetch(db, spans, cache)
    assert [(w.job, w.position, w.attempt) for w in works] == [
        *((one.public_id, position, 2) for position in range(1020, 1028)),
        *((other.public_id, position, 0) for position in (3, 4)),
    ]
    kit.commit(db, [kit.done(work) for work in works[1:9]])
    left = images.fetch(db, spans, cache)
    assert [(w.job, w.position) for w in left] == [(one.public_id, 1020), (other.public_id, 4)]
    assert images.fetch(db, [], cache) == []


def test_the_cache_stays_within_its_bytes(db: Database) -> None:
    job = kit.submit(db, 5000)
    (lane,) = jobs.lanes(db, job.id)
    cache = images.SegmentCache(max_bytes=600_000)
    for start in (0, 2000, 4000, 100):
        span = LeasedSpan(lane.id, job.id, 0, start, 3, 0)
        assert [w.item.index for w in images.fetch(db, [span], cache)] == [
            start,
            start + 1,
            start + 2,
        ]
        assert 0 < cache.bytes <= 600_000


def brute(job: Job, states: dict[int, ImageState], wanted: set[ImageState]) -> list[int]:
    queued = ImageState.QUEUED
    return [i for i in range(job.counts.total) if states.get(i, queued) in wanted]


@pytest.mark.parametrize("lanes", [1, 3])
def test_pages_by_any_filter_equal_a_full_scan(db: Database, lanes: int) -> None:
    job = kit.submit(db, 2600, lanes=lanes)
    states: dict[int, ImageState] = {}
    results = []
    for work in kit.fetch(db, job):
        index = work.item.index
        if index % 7 == 0 or 900 <= index < 1500:
            results.append(kit.done(work))
        elif index % 11 == 0 or index > 2590:
            results.append(kit.failed(work, "a" if index % 2 else "b"))
        else:
            continue
        states[index] = results[-1].state
    for start in range(0, len(results), 200):
        kit.commit(db, results[start : start + 200], shard=start)
    job = kit.now(db, job)
    every = set(ImageState)
    for wanted in ({ImageState.DONE}, {ImageState.FAILED}, {ImageState.QUEUED},
                   {ImageState.DONE, ImageState.FAILED}, {ImageState.FAILED, ImageState.QUEUED},
                   {ImageState.CANCELLED}, every):  # fmt: skip
        pages = list(images.walk(db, job, limit=700, states=sorted(wanted)))
        seen = [image.item.index for page in pages for image in page]
        assert {image.state for page in pages for image in page} <= wanted
        assert len(pages) == max(1, -(-len(seen) // 700))
        assert seen == brute(job, states, wanted)
    plain, more = images.page(db, job, after=1019, limit=10)
    assert [image.item for image in plain] == kit.items(2600)[1020:1030] and more
    assert [image.state for image in plain] == [ImageState.DONE] * 10
    tail, more = images.page(db, job, after=2597, limit=10)
    assert ([image.item.index for image in tail], more) == ([2598, 2599], False)
    assert images.page(db, job, after=2599, limit=10) == ([], False)
    by_code, _ = images.page(db, job, after=None, limit=1000, code="a")
    assert [i.item.index for i in by_code] == [
        i for i, state in states.items() if state is ImageState.FAILED and i % 2
    ]
    for index in (0, 1, 1023, 1024, 2599):
        image = images.get(db, job, index)
        assert image.item == kit.items(2600)[index]
        assert image.state is states.get(index, ImageState.QUEUED)
    for index in (-1, 2600):
        with pytest.raises(errors.NotFound):
            images.get(db, job, index)


def test_a_page_deep_in_a_large_job_reads_little(db: Database) -> None:
    job = kit.submit(db, 40_000, lanes=2)
    fetched: list[str] = []

    def count(_c: object, _cur: object, statement: str, *_rest: object) -> None:
        fetched.append(statement)

    from sqlalchemy import event

    event.listen(db._engine, "before_cursor_execute", count)
    page, _ = images.page(db, job, after=38_999, limit=100, cache=images.SegmentCache())
    assert [image.item.index for image in page] == list(range(39_000, 39_100))
    assert len([s for s in fetched if s.startswith("SELECT")]) <= 5
    fetched.clear()
    page, _ = images.page(
        db, job, after=38_999, limit=50, states=[ImageState.QUEUED], cache=images.SegmentCache()
    )
    assert [image.item.index for image in page] == list(range(39_000, 39_050))
    assert len([s for s in fetched if s.startswith("SELECT")]) <= 16


def test_gaps_are_what_has_no_row_with_the_attempts_of_incidents(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("promptmill.store.gaps.PIECE", 32)
    job = kit.submit(db, 100)
    (lane,) = jobs.lanes(db, job.id)
    assert images.gaps(db, lane.id) == [Span(0, 100)]
    ended = [kit.done(w) for w in kit.fetch(db, job) if w.position in {0, 50, 51, 99}]
    kit.commit(db, ended)
    assert images.gaps(db, lane.id) == [Span(1, 49), Span(52, 47)]
    incidents = [
        Incident("l1", job.id, lane.id, 10, 20, 1, "lost", "w"),
        Incident("l2", job.id, lane.id, 20, 5, 3, "crash", "w"),
        Incident("l3", job.id, lane.id, 48, 10, 1, "lost", "w"),
    ]
    control.record_incidents(db, incidents)
    control.record_incidents(db, [*incidents, replace(incidents[1], attempt=9)])
    assert images.gaps(db, lane.id) == [
        Span(1, 9), Span(10, 10, 1), Span(20, 5, 3), Span(25, 5, 1), Span(30, 18),
        Span(48, 2, 1), Span(52, 6, 1), Span(58, 41),
    ]  # fmt: skip
    assert [control.charged(db, lane.id, p, "crash") for p in (19, 20, 24, 25)] == [0, 1, 1, 0]
    kit.commit(db, [kit.done(work) for work in kit.fetch(db, job)])
    assert images.gaps(db, lane.id) == []
    assert images.gaps(db, 12345) == []


def test_existing_keys_by_generation(db: Database) -> None:
    job = kit.submit(db, 8)
    works = kit.fetch(db, job)
    part = f"jobs/{job.public_id}/g0/parts/l.tar"
    packed = [replace(kit.done(w), key=part, offset=512 * w.position, length=99) for w in works[:4]]
    kit.commit(db, [*packed, kit.failed(works[4])])
    jobs.retry(db, 1, job.public_id, codes=None)
    again = kit.fetch(db, kit.now(db, job), count=1)
    kit.commit(db, [kit.done(work) for work in again])
    assert list(images.existing(db, job.id, 0)) == [part]
    assert list(images.existing(db, job.id, 1)) == [f"jobs/{job.public_id}/g1/4.png"]


def test_relocate_points_a_done_image_at_another_copy(db: Database) -> None:
    job = kit.submit(db, 3, lanes=2)
    works = kit.fetch(db, job)
    kit.commit(db, [kit.done(works[0]), kit.failed(works[1])])
    old = images.get(db, job, 0)
    assert images.relocate(db, job, 0, key="new", offset=5, length=9) == old.key
    assert images.get(db, job, 0) == replace(old, key="new", offset=5, length=9)
    assert images.relocate(db, job, 1, key="new", offset=None, length=None) is None
    assert images.relocate(db, job, 2, key="new", offset=None, length=None) is None


def test_models_are_registered_and_remember(db: Database) -> None:
    model = models.Model("stub", models.Caps(sizes=((64, 64),), cost=0.5), "f1", "a stub")
    stored_models.remove(db, "stub", quiet=0.0)
    with pytest.raises(errors.ModelNotFound, match="none"):
        stored_models.get(db, "stub")
    stored_models.register(db, model)
    stored_models.remember_cap(db, "stub", "cuda", "b1", 4)
    stored_models.remember_cap(db, "stub", "cuda", "b2", 8)
    stored_models.remember_cost(db, "stub", "b1", 0.25)
    stored_models.register(db, replace(model, fingerprint="f2"))
    kept = stored_models.get(db, "stub")
    assert kept.registered_at > 1e9
    assert kept == replace(model, fingerprint="f2", registered_at=kept.registered_at)
    assert not stored_models.add(db, replace(model, fingerprint=""))
    assert stored_models.all(db) == [kept]
    assert stored_models.caps(db, "stub", "cuda") == {"b1": 4, "b2": 8}
    assert stored_models.caps(db, "stub", "cpu") == {}
    assert stored_models.costs(db, "stub") == {"b1": 0.25}
    with pytest.raises(errors.ModelNotFound, match="stub"):
        stored_models.remember_cap(db, "absent", "cpu", "b", 1)


def test_a_new_bucket_takes_the_smallest_cap_of_its_kind(db: Database) -> None:
    def settle(bucket: str, cap: int) -> int:
        return stored_models.settle_cap(db, "stub", "cpu", bucket, cap)

    assert stored_models.standing_cap(db, "stub", "cpu", "width=64,guidance=2.0") is None
    assert settle("width=64,guidance=2.0", 8) == 8
    assert settle("width=64,guidance=3.0", 2) == 8
    stored_models.remember_cap(db, "stub", "cpu", "width=64,guidance=3.0", 4)
    assert settle("width=64,guidance=2.0", 2) == 8
    assert stored_models.standing_cap(db, "stub", "cpu", "width=64,guidance=4.0") == 4
    assert settle("width=64,guidance=4.0", 8) == 4
    assert settle("width=64,guidance=1.0", 16) == 16
    assert stored_models.standing_cap(db, "stub", "cuda", "width=64,guidance=4.0") is None


def test_a_model_is_added_ahead_of_its_first_worker(db: Database) -> None:
    model = models.Model("early", models.Caps(sizes=((64, 64),)), "")
    assert stored_models.add(db, model)
    assert not stored_models.add(db, replace(model, caps=models.Caps(sizes=((8, 8),))))
    assert stored_models.get(db, "early").caps == model.caps
    stored_models.remember_cap(db, "early", "cpu", "b", 4)
    stored_models.register(db, replace(model, fingerprint="f1"))
    assert stored_models.get(db, "early").fingerprint == "f1"
    assert stored_models.caps(db, "early", "cpu") == {"b": 4}


def test_a_model_goes_when_nothing_of_it_is_open(db: Database) -> None:
    job = kit.submit(db, 2)
    with pytest.raises(errors.Conflict, match="1 job"):
        stored_models.remove(db, "stub", quiet=30.0)
    first, second = kit.fetch(db, job)
    kit.commit(db, [kit.done(first), kit.failed(second)])
    control.finish_ready(db)
    stored_models.register(db, models.Model("stub", models.Caps(sizes=((64, 64),)), "f1"))
    with pytest.raises(errors.Conflict, match="a moment ago"):
        stored_models.remove(db, "stub", quiet=30.0)
    stored_models.remember_cap(db, "stub", "cpu", "b", 4)
    stored_models.remove(db, "stub", quiet=0.0)
    assert kit.now(db, job).state is JobState.COMPLETED
    for refused in (
        lambda: stored_models.remove(db, "stub", quiet=0.0),
        lambda: kit.begin(db),
        lambda: kit.submit(db, 1),
        lambda: jobs.retry(db, 1, job.public_id, codes=None),
    ):
        with pytest.raises(errors.ModelNotFound, match="no model 'stub'"):
            refused()
    assert stored_models.add(db, models.Model("stub", models.Caps(sizes=((64, 64),)), ""))
    assert stored_models.caps(db, "stub", "cpu") == {}
    assert jobs.retry(db, 1, job.public_id, codes=None)[1] == 1


def test_an_expired_jobs_rest_is_cancelled(db: Database) -> None:
    job = kit.submit(db, 2, expires_at=1.0)
    kit.commit(db, [kit.done(kit.fetch(db, job)[0])])
    (expired,) = control.expire(db)
    assert expired.state is JobState.EXPIRED and control.expire(db) == []
    page, _ = images.page(db, expired, after=None, limit=5, states=[ImageState.CANCELLED])
    assert [image.item.index for image in page] == [1]
