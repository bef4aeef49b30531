"""The commit of a micro-batch: exactly once, behind the fence, counters equal to rows."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import pytest

from promptmill.jobs import ImageState, JobState
from promptmill.store import control, images, jobs
from promptmill.store.database import Database
from tests.contract import store_kit as kit

pytestmark = pytest.mark.servers


def test_a_result_is_inserted_once_and_counted_once(db: Database) -> None:
    job = kit.submit(db, 5)
    works = kit.fetch(db, job)
    results = [kit.done(works[0]), kit.done(works[1]), kit.failed(works[2])]
    first = kit.commit(db, results, shard=3)
    assert first.inserted == {(r.lane, r.position) for r in results}
    assert first.dropped_jobs == frozenset()
    again = kit.commit(db, [*results, kit.done(works[3])], shard=9)
    assert again.inserted == {(works[3].lane, works[3].position)}
    current = kit.check(db, job)
    assert (current.counts.done, current.counts.failed, current.counts.bytes) == (3, 1, 30)
    assert current.started_at is not None
    assert [w.item.index for w in kit.fetch(db, job)] == [4]


def test_a_terminal_image_never_changes(db: Database) -> None:
    job = kit.submit(db, 1)
    (work,) = kit.fetch(db, job)
    kit.commit(db, [kit.done(work)])
    kit.commit(db, [kit.failed(work)], shard=1)
    image = images.get(db, job, 0)
    assert (image.state, image.error_code, image.bytes) == (ImageState.DONE, None, 10)
    assert kit.check(db, job).counts.failed == 0


def test_every_field_of_a_result_comes_back(db: Database) -> None:
    job = kit.submit(db, 2)
    ok, bad = kit.fetch(db, job)
    kit.commit(
        db,
        [
            replace(kit.done(ok), attempt=2, offset=512, length=99, score=0.25, render_ms=7.5),
            replace(kit.failed(bad), error_text="a\0b\ud800" + "x" * 5000),
        ],
    )
    image = images.get(db, job, 0)
    assert image.item == kit.items(1)[0]
    assert (image.attempt, image.offset, image.length) == (2, 512, 99)
    assert (image.score, image.render_ms, image.fingerprint, image.worker) == (
        0.25,
        7.5,
        "f1",
        "w1",
    )
    assert image.sha256 is not None and len(image.sha256) == 32 and image.finished_at is not None
    text = images.get(db, job, 1).error_text
    assert text is not None and text.startswith("a\ufffdb?x") and len(text) == 2000


def test_a_cancelled_jobs_items_are_dropped_and_the_others_committed(db: Database) -> None:
    doomed, other = kit.submit(db, 4), kit.submit(db, 4)
    lost, kept = kit.fetch(db, doomed), kit.fetch(db, other)
    kit.commit(db, [kit.done(lost[0])])
    jobs.cancel(db, 1, doomed.public_id)
    outcome = kit.commit(db, [kit.done(w) for w in (*lost, *kept)], shard=5)
    assert outcome.dropped_jobs == {doomed.id}
    assert outcome.inserted == {(w.lane, w.position) for w in kept}
    assert kit.check(db, doomed).counts.done == 1
    assert kit.check(db, other).counts.done == 4


def test_an_older_generation_is_dropped(db: Database) -> None:
    job = kit.submit(db, 3)
    works = kit.fetch(db, job)
    kit.commit(db, [kit.failed(works[0])])
    jobs.retry(db, 1, job.public_id, codes=None)
    assert kit.commit(db, [kit.done(works[1])]).dropped_jobs == {job.id}
    fresh = kit.fetch(db, kit.now(db, job))
    assert len(fresh) == 3
    assert len(kit.commit(db, [kit.done(w) for w in fresh]).inserted) == 3
    kit.check(db, job)


def test_nothing_is_committed_to_a_job_that_is_over(db: Database) -> None:
    job = kit.submit(db, 2)
    works = kit.fetch(db, job)
    kit.commit(db, [kit.done(w) for w in works])
    assert [j.id for j in control.finish_ready(db)] == [job.id]
    assert kit.commit(db, [kit.done(works[0])]).dropped_jobs == {job.id}
    assert kit.commit(db, []).inserted == frozenset()


def test_a_paused_job_takes_what_is_in_flight(db: Database) -> None:
    job = kit.submit(db, 2)
    works = kit.fetch(db, job)
    jobs.pause(db, 1, job.public_id)
    assert kit.fetch(db, job) == []
    assert len(kit.commit(db, [kit.done(works[0])]).inserted) == 1


def test_concurrent_commits_of_the_same_images_count_each_once(db: Database) -> None:
    size, threads = 40, 6
    pair = [kit.submit(db, size), kit.submit(db, size, lanes=3)]
    works = [work for job in pair for work in kit.fetch(db, job)]
    inserted: list[tuple[int, int]] = []
    faults: list[BaseException] = []

    def committer(shard: int) -> None:
        rng = random.Random(shard)
        mine = works[:]
        rng.shuffle(mine)
        try:
            for start in range(0, len(mine), 16):
                batch = [kit.done(w) for w in mine[start : start + 16]]
                inserted.extend(kit.commit(db, batch, shard=shard).inserted)
        except BaseException as fault:
            faults.append(fault)

    running = [threading.Thread(target=committer, args=(n,)) for n in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
    assert not faults
    assert len(inserted) == len(set(inserted)) == 2 * size
    for job in pair:
        assert kit.check(db, job).counts.done == size


def test_cancel_against_commits_leaves_counters_equal_to_rows(db: Database) -> None:
    jobs_here = [kit.submit(db, 60) for _ in range(3)]
    works = {job.id: kit.fetch(db, job) for job in jobs_here}
    faults: list[BaseException] = []

    def committer(shard: int) -> None:
        try:
            for start in range(0, 60, 5):
                kit.commit(
                    db,
                    [kit.done(w) for mine in works.values() for w in mine[start : start + 5]],
                    shard=shard,
                )
        except BaseException as fault:
            faults.append(fault)

    running = [threading.Thread(target=committer, args=(n,)) for n in range(3)]
    for thread in running:
        thread.start()
    for job in jobs_here:
        jobs.cancel(db, 1, job.public_id)
    frozen = [kit.now(db, job).counts for job in jobs_here]
    for thread in running:
        thread.join(60)
    assert not faults
    assert [kit.check(db, job).counts for job in jobs_here] == frozen


@pytest.mark.parametrize("seed", [1, 2])
def test_counters_equal_rows_after_any_story(db: Database, seed: int) -> None:
    rng = random.Random(seed)
    held = [kit.submit(db, 30, lanes=rng.choice([1, 2, 3])) for _ in range(3)]
    works = {job.id: kit.fetch(db, job) for job in held}
    for _ in range(60):
        job = kit.now(db, rng.choice(held))
        act = rng.choice(["commit"] * 6 + ["retry", "pause", "resume", "refresh", "finish"])
        if act == "commit":
            batch = rng.sample(works[job.id], min(8, len(works[job.id])))
            kit.commit(
                db,
                [kit.done(w) if rng.random() < 0.7 else kit.failed(w) for w in batch],
                shard=rng.randrange(40),
            )
        elif act == "retry" and job.state is not JobState.CANCELLING:
            jobs.retry(db, 1, job.public_id, codes=None)
        elif act == "pause" and job.state is JobState.QUEUED:
            jobs.pause(db, 1, job.public_id)
        elif act == "resume" and job.state is JobState.PAUSED:
            jobs.resume(db, 1, job.public_id)
        elif act == "refresh":
            works[job.id] = kit.fetch(db, job) or works[job.id]
        elif act == "finish":
            control.finish_ready(db)
        current = kit.check(db, job)
        assert min(current.counts.done, current.counts.failed) >= 0
