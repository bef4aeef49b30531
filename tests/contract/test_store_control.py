"""What control decides from: completion, lanes to drop, sweeps, tombstones, retention."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from promptmill.jobs import JobState
from promptmill.store import control, deletion, jobs
from promptmill.store.database import Database
from tests.contract import store_kit as kit

pytestmark = pytest.mark.servers


def test_a_job_completes_when_its_last_image_is_terminal(db: Database) -> None:
    job, paused, open_ = kit.submit(db, 3, lanes=2), kit.submit(db, 1), kit.submit(db, 2)
    works = kit.fetch(db, job)
    kit.commit(db, [kit.done(works[0]), kit.failed(works[1])], shard=1)
    kit.commit(db, [kit.done(work) for work in kit.fetch(db, paused)])
    jobs.pause(db, 1, paused.public_id)
    assert [j.id for j in control.finish_ready(db)] == [paused.id]
    kit.commit(db, [kit.done(works[2])], shard=2)
    assert control.finish_ready(db, [open_.public_id]) == []
    (completed,) = control.finish_ready(db, [job.public_id, open_.public_id])
    assert (completed.state, completed.counts.failed) == (JobState.COMPLETED, 1)
    assert completed.finished_at is not None and completed.started_at is not None
    assert [j.id for j in control.open_jobs(db, "stub")] == [open_.id]
    assert control.open_jobs(db, "other") == []
    assert [j.id for j in control.open_jobs(db)] == [open_.id]


def test_lanes_of_jobs_that_are_not_queued_are_to_be_dropped(db: Database) -> None:
    queued, paused = kit.submit(db, 4, lanes=2), kit.submit(db, 1)
    version = jobs.pause(db, 1, paused.public_id).version
    kit.commit(db, [kit.done(kit.fetch(db, queued)[0])])
    ids = [lane.id for job in (queued, paused) for lane in jobs.lanes(db, job.id)]
    closed = control.closed_lanes(db, [*ids, 4242])
    assert closed.pop(4242) > version
    assert closed == {ids[-1]: version}
    assert sum(control.lane_terminals(db, ids).values()) == 1
    lanes = jobs.queue_lanes(db, queued)
    assert [lane.id for lane in lanes] == ids[:-1]
    assert {(lane.job_id, lane.generation, lane.version) for lane in lanes} == {(queued.id, 0, 1)}
    assert {lane.bucket for lane in lanes} == {"lane=0", "lane=1"}


def test_a_generation_is_swept_once_it_is_over(db: Database) -> None:
    job = kit.submit(db, 2)
    ok, bad = kit.fetch(db, job)
    kit.commit(db, [kit.done(ok), kit.failed(bad)])
    assert control.sweepable(db) == []
    control.finish_ready(db)
    assert [j.id for j in control.sweepable(db)] == [job.id]
    assert control.sweepable(db, settled=3600) == []
    assert control.sweepable_generations(db, job.id) == range(1)
    control.swept(db, job.id, 0)
    assert control.sweepable(db) == []
    jobs.retry(db, 1, job.public_id, codes=None)
    assert control.sweepable(db) == []  # generation 1 runs
    jobs.cancel(db, 1, job.public_id)
    control.finish_cancelling(db, job.id)
    assert control.sweepable_generations(db, job.id) == range(1, 2)
    control.swept(db, job.id, 1)
    assert control.sweepable_generations(db, 999) == range(0)


def test_a_retried_jobs_old_generation_is_swept_while_the_new_one_runs(db: Database) -> None:
    job = kit.submit(db, 2)
    kit.commit(db, [kit.failed(kit.fetch(db, job)[0])])
    jobs.retry(db, 1, job.public_id, codes=None)
    assert control.sweepable_generations(db, job.id) == range(1)


def test_what_came_after_the_sweep_is_swept_again(db: Database) -> None:
    job, other = kit.submit(db, 2), kit.submit(db, 1)
    late, more = kit.fetch(db, job), kit.fetch(db, other)
    jobs.cancel(db, 1, job.public_id)
    control.finish_cancelling(db, job.id)
    control.swept(db, job.id, 0)
    assert control.sweepable(db) == []
    found = kit.commit(db, [kit.done(one) for one in (*late, *more)])
    assert found.dropped_jobs == {job.id}
    assert [one.id for one in control.sweepable(db)] == [job.id]
    assert control.sweepable_generations(db, job.id) == range(1)


def test_a_tombstone_is_swept_twice_and_then_gone(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = kit.everything(db)
    job = kit.submit(db, 3)
    deletion.delete(db, 1, job.public_id)
    control.finish_cancelling(db, job.id)
    assert [j.public_id for j in control.tombstones(db)] == [job.public_id]
    assert control.sweepable(db) == []
    assert not control.purge(db, job.id)
    assert control.tombstones(db) == []
    tomorrow = db.now() + 86_500
    monkeypatch.setattr(db, "now", lambda: tomorrow)
    assert [j.id for j in control.tombstones(db)] == [job.id]
    assert control.purge(db, job.id)
    assert kit.everything(db) == before


def test_purge_spares_what_is_not_deleted(db: Database) -> None:
    job = kit.submit(db, 3)
    before = kit.everything(db)
    assert not control.purge(db, job.id)
    assert kit.everything(db) == before


def test_an_erasure_that_was_cut_short_is_finished_by_control(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "_ERASE_SECONDS", -1.0)
    job = kit.submit(db, 3000, lanes=2)
    kit.commit(db, [kit.done(work) for work in kit.fetch(db, job, count=30)])
    jobs.cancel(db, 1, job.public_id)
    control.finish_cancelling(db, job.id)
    deletion.delete(db, 1, job.public_id)
    control.purge(db, job.id)
    left = kit.everything(db)
    assert left["segments"] == left["row_map"] == left["images"] == left["job_counters"] == 0


def test_retention_deletes_what_ended_long_ago(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, live = kit.submit(db, 1), kit.submit(db, 1)
    kit.commit(db, [kit.done(work) for work in kit.fetch(db, old)])
    control.finish_ready(db)
    assert control.retention(db, 1.0) == []
    later = db.now() + 2 * 86_400
    monkeypatch.setattr(db, "now", lambda: later)
    assert [job.id for job in control.retention(db, 1.0)] == [old.id]
    assert [job.id for job in control.tombstones(db)] == [old.id]
    assert kit.now(db, live).state is JobState.QUEUED


def test_a_reader_that_holds_deleted_bytes_delays_the_purge(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path / 'farm.db'}")
    db.migrate()
    kit.register(db)
    job = kit.submit(db, 3)
    deletion.delete(db, 1, job.public_id)
    reader = sqlite3.connect(tmp_path / "farm.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM segments").fetchone()
    control.finish_cancelling(db, job.id)
    control.purge(db, job.id)
    assert [j.id for j in control.tombstones(db)] == [job.id]
    reader.close()
    control.purge(db, job.id)
    assert control.tombstones(db) == []
    db.close()
