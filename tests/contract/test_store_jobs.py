"""Jobs: pages, isolation of tenants, and every change of state that a caller asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from promptmill import errors
from promptmill.jobs import ImageState, JobState
from promptmill.leases import Incident, Span
from promptmill.records import Job
from promptmill.store import control, deletion, images, jobs, outbox, tenants
from promptmill.store.database import Database
from tests.contract import store_kit as kit

pytestmark = pytest.mark.servers
SECRET = "zanzibar-marmalade-lighthouse"


def test_pages_run_newest_first(db: Database) -> None:
    made = [kit.submit(db, 1) for _ in range(5)]
    jobs.cancel(db, 1, made[3].public_id)
    first, more = jobs.page(db, 1, after=None, limit=2)
    assert ([job.id for job in first], more) == ([made[4].id, made[3].id], True)
    rest, more = jobs.page(db, 1, after=first[-1].public_id, limit=3)
    assert ([job.id for job in rest], more) == ([made[2].id, made[1].id, made[0].id], False)
    only, _ = jobs.page(db, 1, after=None, limit=9, states=[JobState.CANCELLING])
    assert [job.id for job in only] == [made[3].id]
    assert jobs.summary(db, 1) == {JobState.QUEUED: 4, JobState.CANCELLING: 1}
    with pytest.raises(errors.BadRequest):
        jobs.page(db, 1, after="job_unknown", limit=3)


def test_a_tenant_sees_nothing_of_another(db: Database) -> None:
    tenants.create_key(db, "acme")
    theirs = kit.submit(db, 3, tenant_id=2)
    kit.commit(db, [kit.done(work) for work in kit.fetch(db, theirs)])
    sha = images.get(db, theirs, 0).sha256
    assert sha is not None
    assert images.by_sha256(db, 2, sha) == [(theirs.public_id, 0)]
    assert images.by_sha256(db, 1, sha) == []
    assert jobs.page(db, 1, after=None, limit=9) == ([], False)
    assert jobs.summary(db, 1) == {}
    acts: list[Callable[[], object]] = [
        lambda: jobs.get(db, 1, theirs.public_id),
        lambda: jobs.pause(db, 1, theirs.public_id),
        lambda: jobs.resume(db, 1, theirs.public_id),
        lambda: jobs.cancel(db, 1, theirs.public_id),
        lambda: jobs.retry(db, 1, theirs.public_id, codes=None),
        lambda: deletion.delete(db, 1, theirs.public_id),
    ]
    for act in acts:
        with pytest.raises(errors.NotFound):
            act()
    with pytest.raises(errors.BadRequest):
        jobs.page(db, 1, after=theirs.public_id, limit=9)
    assert kit.now(db, theirs).state is JobState.QUEUED


def test_pause_and_resume(db: Database) -> None:
    job = kit.submit(db, 3)
    paused = jobs.pause(db, 1, job.public_id)
    assert (paused.state, paused.version) == (JobState.PAUSED, job.version + 1)
    assert jobs.pause(db, 1, job.public_id) == paused
    assert jobs.renderable(db, {job.id: 0}) == set()
    resumed = jobs.resume(db, 1, job.public_id)
    assert (resumed.state, resumed.version) == (JobState.QUEUED, paused.version + 1)
    assert jobs.resume(db, 1, job.public_id) == resumed
    assert jobs.renderable(db, {job.id: 0, 999: 0}) == {job.id}
    assert jobs.renderable(db, {job.id: 1}) == set()


def ended(db: Database) -> dict[JobState, Job]:
    """A job in each final state."""
    completed, cancelled, expired = (
        kit.submit(db, 1),
        kit.submit(db, 1),
        kit.submit(db, 1, expires_at=1.0),
    )
    kit.commit(db, [kit.done(work) for work in kit.fetch(db, completed)])
    control.finish_ready(db)
    jobs.cancel(db, 1, cancelled.public_id)
    control.finish_cancelling(db, cancelled.id)
    control.expire(db)
    found = {job.state: job for job in (kit.now(db, j) for j in (completed, cancelled, expired))}
    assert set(found) == {JobState.COMPLETED, JobState.CANCELLED, JobState.EXPIRED}
    return found


def test_what_is_over_stays_over(db: Database) -> None:
    for state, job in ended(db).items():
        for act in (jobs.pause, jobs.resume):
            with pytest.raises(errors.IllegalTransition):
                act(db, 1, job.public_id)
        assert jobs.cancel(db, 1, job.public_id) == job
        if state is not JobState.COMPLETED:
            with pytest.raises(errors.IllegalTransition):
                jobs.retry(db, 1, job.public_id, codes=None)
        assert kit.now(db, job) == job
        assert job.finished_at is not None


def test_cancel_is_one_row_and_a_fence(db: Database) -> None:
    job = kit.submit(db, 5)
    works = kit.fetch(db, job)
    kit.commit(db, [kit.done(works[0])])
    cancelling = jobs.cancel(db, 1, job.public_id)
    assert (cancelling.state, cancelling.version) == (JobState.CANCELLING, 2)
    assert jobs.cancel(db, 1, job.public_id) == cancelling
    page, _ = images.page(db, cancelling, after=None, limit=9)
    assert [image.state for image in page] == [ImageState.DONE] + [ImageState.CANCELLED] * 4
    finished = control.finish_cancelling(db, job.id)
    assert finished is not None and finished.state is JobState.CANCELLED
    assert control.finish_cancelling(db, job.id) is None


def test_retry_by_code(db: Database) -> None:
    job = kit.submit(db, 6, lanes=2)
    works = kit.fetch(db, job)
    kit.commit(db, [kit.failed(w, "rejected") for w in works[:2]], shard=7)
    kit.commit(db, [kit.failed(w, "worker_crashed") for w in works[2:5]], shard=8)
    kit.commit(db, [kit.done(works[5])], shard=9)
    control.record_incidents(
        db, [Incident("l", job.id, works[2].lane, works[2].position, 1, 2, "crash", "w")]
    )
    assert images.error_counts(db, job.id) == {"worker_crashed": 3, "rejected": 2}
    (completed,) = control.finish_ready(db)
    assert jobs.retry(db, 1, job.public_id, codes=["nonsense"]) == (completed, 0)
    again, count = jobs.retry(db, 1, job.public_id, codes=["worker_crashed"])
    assert (count, again.state, again.generation) == (3, JobState.QUEUED, 1)
    assert again.version == completed.version + 1 and again.finished_at is None
    assert control.charged(db, works[2].lane, works[2].position, "crash") == 0
    current = kit.check(db, job)
    assert (current.counts.done, current.counts.failed) == (1, 2)
    retried = kit.fetch(db, current)
    assert [work.item for work in retried] == [work.item for work in works[2:5]]
    assert {work.generation for work in retried} == {1}
    kit.commit(db, [kit.done(work) for work in retried])
    assert [j.state for j in control.finish_ready(db)] == [JobState.COMPLETED]
    assert kit.check(db, job).counts.failed == 2


def test_retry_of_a_running_or_paused_job_keeps_its_state(db: Database) -> None:
    for state in (JobState.QUEUED, JobState.PAUSED):
        job = kit.submit(db, 3)
        kit.commit(db, [kit.failed(kit.fetch(db, job)[0])])
        if state is JobState.PAUSED:
            jobs.pause(db, 1, job.public_id)
        again, count = jobs.retry(db, 1, job.public_id, codes=None)
        assert (count, again.state, again.generation) == (1, state, 1)
        (lane,) = jobs.lanes(db, job.id)
        assert images.gaps(db, lane.id) == [Span(0, 3)]


def test_a_retry_longer_than_a_chunk(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_RETRY_CHUNK", 4)
    job = kit.submit(db, 10)
    kit.commit(db, [kit.failed(work) for work in kit.fetch(db, job)])
    control.finish_ready(db)
    again, count = jobs.retry(db, 1, job.public_id, codes=None)
    assert (count, again.counts.failed, again.generation) == (10, 0, 1)
    kit.check(db, job)


def test_a_retry_that_slept_leaves_what_failed_anew(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two chunks the first images that were put back fail again, and the job ends."""
    monkeypatch.setattr(jobs, "_RETRY_CHUNK", 2)
    job = kit.submit(db, 4)
    works = kit.fetch(db, job)
    kit.commit(db, [kit.failed(work) for work in works])
    control.finish_ready(db)
    real, calls = db.write, 0

    def slow(work: Callable[[Connection], Any]) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            monkeypatch.undo()
            (lane,) = jobs.lanes(db, job.id)
            back = {
                at
                for span in images.gaps(db, lane.id)
                for at in range(span.start, span.start + span.count)
            }
            assert len(back) == 2
            fresh = [replace(one, generation=1) for one in works if one.position in back]
            kit.commit(db, [kit.failed(work) for work in fresh])
            assert control.finish_ready(db)
        return real(work)

    monkeypatch.setattr(db, "write", slow)
    ended, count = jobs.retry(db, 1, job.public_id, codes=None)
    assert (count, ended.state, ended.counts.failed) == (2, JobState.COMPLETED, 4)
    kit.check(db, job)
    _, count = jobs.retry(db, 1, job.public_id, codes=None)
    assert count == 4


def test_webhooks_hear_of_every_state(db: Database) -> None:
    job = kit.submit(db, 1, webhook="http://hook", prompt=SECRET, name=SECRET)
    jobs.pause(db, 1, job.public_id)
    jobs.resume(db, 1, job.public_id)
    kit.commit(db, [kit.done(work) for work in kit.fetch(db, job)])
    control.finish_ready(db)
    due = outbox.due(db, 10)
    assert [d.event for d in due] == ["job.queued", "job.paused", "job.queued", "job.completed"]
    assert due[-1].url == "http://hook" and due[-1].payload["id"] == job.public_id
    assert due[-1].payload["counts"] == {"total": 1, "done": 1, "failed": 0}
    assert SECRET not in repr(due)
    tried = outbox.Attempt(db.now(), 0.1, 503, "HTTP 503")
    outbox.sent(db, due[0].id, replace(tried, status=200, error=None))
    outbox.failed(db, due[1].id, db.now() + 60, replace(tried, error="x" * 900))
    outbox.failed(db, due[2].id, db.now() - 1, tried)
    outbox.failed(db, due[3].id, None, tried)
    (left,) = outbox.due(db, 10)
    assert (left.id, left.attempts) == (due[2].id, 1)


def secret_job(db: Database, **head: object) -> Job:
    job = kit.submit(
        db,
        2100,
        lanes=2,
        key=SECRET,
        prompt=SECRET,
        name=SECRET,
        metadata={"m": SECRET},
        defaults={"d": SECRET},
        recipe={"r": SECRET},
        webhook=f"http://{SECRET}",
        **head,
    )
    works = kit.fetch(db, job)
    kit.commit(db, [kit.done(work) for work in works[:20]])
    kit.commit(db, [kit.failed(work, SECRET) for work in works[20:30]])
    return job


def assert_no_trace(db: Database, job: Job) -> None:
    with pytest.raises(errors.NotFound):
        jobs.get(db, 1, job.public_id)
    left = kit.everything(db)
    for table in ("segments", "row_map", "images", "incidents", "outbox", "job_counters"):
        assert left[table] == 0, table
    if db.dialect == "sqlite":
        path = Path(db.place)
        files = [f for f in path.parent.glob(f"{path.name}*") if f.is_file()]
        assert files
        for file in files:
            assert SECRET.encode() not in file.read_bytes(), file.name


def test_a_deleted_job_leaves_no_byte_of_its_prompts(db: Database) -> None:
    job = secret_job(db)
    jobs.cancel(db, 1, job.public_id)
    control.finish_cancelling(db, job.id)
    deletion.delete(db, 1, job.public_id)
    assert_no_trace(db, job)
    assert jobs.page(db, 1, after=None, limit=9) == ([], False)
    with pytest.raises(errors.NotFound):
        deletion.delete(db, 1, job.public_id)
    (tombstone,) = control.tombstones(db)
    assert (tombstone.public_id, tombstone.output) == (job.public_id, job.output)
    kit.submit(db, 1, key=SECRET)  # the key is free again


def test_a_live_job_is_cancelled_first_and_deleted_by_control(db: Database) -> None:
    job = secret_job(db)
    works = kit.fetch(db, job)
    assert deletion.delete(db, 1, job.public_id).state is JobState.CANCELLING
    assert kit.now(db, job).state is JobState.CANCELLING
    assert kit.commit(db, [kit.done(works[0])]).dropped_jobs == {job.id}
    assert control.tombstones(db) == []
    control.finish_cancelling(db, job.id)
    assert_no_trace(db, job)
    assert kit.commit(db, [kit.done(works[0])]).dropped_jobs == {job.id}
    assert images.fetch(db, kit.spans(db, job), images.SegmentCache()) == []


def test_those_that_verify_a_job_are_deleted_with_it(db: Database) -> None:
    job, other = secret_job(db), kit.submit(db, 1)
    live = kit.submit(db, 1, verifies=job.id)
    receiving = kit.begin(db, verifies=live.id)
    jobs.cancel(db, 1, job.public_id)
    control.finish_cancelling(db, job.id)
    deletion.delete(db, 1, job.public_id)
    assert kit.now(db, live).state is JobState.CANCELLING
    with pytest.raises(errors.Conflict):
        kit.fill(db, receiving, kit.items(3))
    control.finish_cancelling(db, live.id)
    left, _ = jobs.page(db, 1, after=None, limit=9)
    assert [one.id for one in left] == [other.id]
    assert len(control.tombstones(db)) == 3
    with pytest.raises(errors.NotFound):
        kit.begin(db, verifies=job.id)


def test_an_upload_can_be_deleted(db: Database) -> None:
    upload = kit.begin(db, key="k")
    kit.fill(db, upload, kit.items(2000))
    deletion.delete(db, 1, upload.public_id)
    with pytest.raises(errors.Conflict):
        kit.fill(db, upload, kit.items(3))
    assert kit.everything(db)["segments"] == 0


def test_a_key_may_do_what_its_scopes_say(db: Database) -> None:
    key_id, secret = tenants.create_key(db, "acme", scopes=("submit", "read"))
    found = tenants.authenticate(db, secret)
    assert found is not None and found[1] == {tenants.Scope.READ, tenants.Scope.SUBMIT}
    listed = {key.id: key for key in tenants.list_keys(db)}
    assert listed[key_id].scopes == found[1]


def test_keys_are_hashed_and_revocable(db: Database) -> None:
    key_id, secret = tenants.create_key(db, "acme", weight=2.0, max_queued=50)
    _, second = tenants.create_key(db, "acme")
    found = tenants.authenticate(db, secret)
    assert found is not None
    tenant, scopes = found
    assert scopes == {"read", "submit", "manage"}
    assert (tenant.name, tenant.weight, tenant.max_queued) == ("acme", 2.0, 50)
    assert tenants.authenticate(db, second) == found
    assert tenants.get(db, tenant.id) == tenant
    for wrong in (secret[:-1] + "x", "", "pm_", secret.upper(), "\0", "schlüssel", secret + " "):
        assert tenants.authenticate(db, wrong) is None
    assert secret not in repr(tenants.list_keys(db))
    assert tenants.revoke_key(db, key_id)
    assert not tenants.revoke_key(db, key_id)
    assert tenants.authenticate(db, secret) is None
    assert tenants.authenticate(db, second) == found
    listed = {key.id: key for key in tenants.list_keys(db)}
    assert listed[key_id].revoked_at is not None and listed[key_id].tenant == "acme"
    with pytest.raises(errors.NotFound):
        tenants.get(db, 99)


def test_a_known_tenants_share_and_limit_are_changed_where_they_are_given(db: Database) -> None:
    _, secret = tenants.create_key(db, "acme", max_queued=50)

    def told() -> tuple[float, int | None]:
        found = tenants.authenticate(db, secret)
        assert found is not None
        return found[0].weight, found[0].max_queued

    assert told() == (1.0, 50)
    tenants.create_key(db, "acme", weight=3.0)
    assert told() == (3.0, 50)
    tenants.create_key(db, "acme", max_queued=70)
    assert told() == (3.0, 70)
