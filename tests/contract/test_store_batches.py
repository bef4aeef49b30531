"""Batches and their files on both databases: who works on which, what ends them, what a
request sent again gets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from promptmill import errors
from promptmill.store import batch_claims, batch_ends, batches, control, deletion, files, outbox
from promptmill.store import jobs as stored_jobs
from promptmill.store.batch_ends import Outcome
from promptmill.store.batches import Batch, NewBatch
from promptmill.store.database import Database
from tests.contract.store_kit import commit, done, everything, failed, fetch, submit

pytestmark = pytest.mark.servers

NEW = NewBatch(
    tenant_id=1,
    endpoint="/v1/images/generations",
    input_file="file_a",
    completion_window="24h",
    seconds=86_400.0,
    priority="bulk",
    packing="image",
    webhook=None,
    metadata={"run": "1"},
    base_url="http://farm/",
    output_expires_in=3600.0,
    idempotency_key=None,
    request_hash="hash",
    repeat=60.0,
)


def made(db: Database, **given: Any) -> Batch:
    return batches.create(db, replace(NEW, **given))[0]


def claimed(db: Database) -> int | None:
    batch = batch_claims.claim(db, seconds=30.0)
    return None if batch is None else batch.id


def test_an_equal_request_gets_the_batch_that_is_there(db: Database) -> None:
    first = made(db)
    assert batches.create(db, NEW) == (first, False)
    assert made(db, tenant_id=2).id != first.id
    assert made(db, repeat=0.0).id != first.id
    keyed = made(db, idempotency_key="k")
    assert made(db, idempotency_key="k", repeat=0.0).id == keyed.id
    with pytest.raises(errors.IdempotencyMismatch):
        made(db, idempotency_key="k", request_hash="other")
    assert first.metadata == {"run": "1"} and first.errors is None


def test_a_batch_is_one_processes_until_its_claim_lapses(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = made(db), made(db, request_hash="second")
    assert [claimed(db), claimed(db), claimed(db)] == [first.id, second.id, None]
    batch_claims.release(db, second.id)
    assert claimed(db) == second.id
    now = db.now()
    monkeypatch.setattr(type(db), "now", lambda _: now + 31)
    batch_claims.renew(db, second.id, seconds=30.0)
    assert [claimed(db), claimed(db)] == [first.id, None]


def test_it_is_due_again_when_its_job_is_over(db: Database) -> None:
    batch = made(db, webhook="http://hook.example/")
    assert claimed(db) == batch.id
    job = submit(db, 3)
    born = batch_claims.became(db, batch.id, job=job, requests=3)
    assert born.job_id == job.id and claimed(db) is None
    works = fetch(db, job)
    commit(db, [done(works[0]), done(works[1]), failed(works[2])])
    stored_jobs.started(db, [job.id])
    [over] = control.finish_ready(db)
    assert claimed(db) == batch.id
    outcome = Outcome("completed", completed=2, failed=1, output_bytes=50, error_bytes=20)
    assert not batch_ends.end(db, batch.id, outcome, job=job), "that is not how the job is now"
    assert batch_ends.end(db, batch.id, outcome, job=over)
    ended = batches.get(db, 1, batch.public_id)
    assert (ended.status, ended.completed, ended.failed) == ("completed", 2, 1)
    assert ended.finalizing_at == over.finished_at
    assert claimed(db) is None
    listed, _ = files.page(db, 1, after=None, limit=10)
    assert {file.public_id: file.bytes for file in listed} == {
        batch.output_file: 50,
        batch.error_file: 20,
    }
    stored_jobs.retry(db, None, job.public_id, codes=None)
    assert batches.get(db, 1, batch.public_id).status is None
    assert claimed(db) is None, "its job runs"


def test_what_is_refused_keeps_its_problems(db: Database) -> None:
    batch = made(db)
    problems = [{"code": "invalid_json_line", "message": "no", "param": None, "line": 2}]
    batch_ends.refuse(db, batch.id, problems=problems, requests=2)
    refused = batches.get(db, 1, batch.public_id)
    assert (refused.status, refused.errors) == ("failed", problems)
    assert batches.cancel(db, batch.id).cancelling_at is None, "it is over"
    assert claimed(db) is None and files.page(db, 1, after=None, limit=10) == ([], False)


def test_pages_are_a_tenants_own(db: Database) -> None:
    mine = [made(db, request_hash=str(n)) for n in range(3)]
    other = made(db, tenant_id=2)
    found, more = batches.page(db, 1, after=None, limit=2)
    assert ([batch.id for batch in found], more) == ([mine[2].id, mine[1].id], True)
    rest, more = batches.page(db, 1, after=found[-1].public_id, limit=2)
    assert ([batch.id for batch in rest], more) == ([mine[0].id], False)
    with pytest.raises(errors.NotFound):
        batches.get(db, 1, other.public_id)
    with pytest.raises(errors.BadRequest):
        batches.page(db, 1, after=other.public_id, limit=2)


def test_a_deleted_job_takes_the_files_of_its_batch_along(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left says how it ended until the tombstone goes; the other batch stays whole."""
    hook = {"webhook": "http://hook.example/"}
    ended, live = made(db, **hook, idempotency_key="k"), made(db, **hook, request_hash="b")
    other = made(db, request_hash="other")
    jobs = {batch.id: submit(db, 2) for batch in (ended, live, other)}
    for batch in (ended, live, other):
        batch_claims.became(db, batch.id, job=jobs[batch.id], requests=2)
    for batch in (ended, live):
        stored_jobs.cancel(db, 1, jobs[batch.id].public_id)
        control.finish_cancelling(db, jobs[batch.id].id)
    batch_ends.end(db, ended.id, Outcome("cancelled", completed=1, output_bytes=9, error_bytes=9))
    for batch in (ended, live):
        deletion.delete(db, 1, jobs[batch.id].public_id)
    for batch, completed in ((ended, 1), (live, 0)):
        husk = batches.get(db, 1, batch.public_id)
        assert (husk.status, husk.completed, husk.metadata) == ("cancelled", completed, None)
        assert husk.output_file == husk.error_file == "" and husk.webhook is None
        for name in (batch.output_file, batch.error_file):
            with pytest.raises(errors.NotFound):
                files.get(db, 1, name)
    [event] = outbox.due(db, 10)
    assert (event.event, event.payload["id"]) == ("batch.cancelled", live.public_id)
    assert files.get(db, 1, other.output_file).state == files.OPEN
    assert made(db, **hook, idempotency_key="k").id != ended.id, "its key is free again"
    assert {file.batch_id for file in files.dead(db, 10)} == {ended.id, live.id}
    for _ in range(2):
        for job in control.tombstones(db):
            control.purge(db, job.id)
        later = db.now() + 86_401
        monkeypatch.setattr(type(db), "now", lambda _, later=later: later)
    found, _ = batches.page(db, 1, after=None, limit=10)
    assert {batch.id for batch in found} & {ended.id, live.id, other.id} == {other.id}


def test_retention_removes_what_never_became_a_job(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = {"webhook": "http://hook.example/"}
    refused, lives, works = made(db, **hook), made(db, request_hash="b"), made(db, request_hash="c")
    problems = [{"code": "invalid_request", "message": "no", "param": None, "line": 1}]
    batch_ends.refuse(db, refused.id, problems=problems, requests=1)
    batch_claims.became(db, works.id, job=submit(db, 1), requests=1)
    [event] = outbox.due(db, 10)
    outbox.sent(db, event.id, outbox.Attempt(db.now(), 0.1, 200, None))
    outbox.retention(db, 1.0)
    assert batch_ends.retention(db, 1.0) == 0 and everything(db)["outbox"] == 1
    later = db.now() + 2 * 86_400
    monkeypatch.setattr(type(db), "now", lambda _: later)
    outbox.retention(db, 1.0)
    assert [batch_ends.retention(db, 1.0), batch_ends.retention(db, 1.0)] == [1, 0]
    left = everything(db)
    assert left["outbox"] == left["webhook_attempts"] == 0
    found, _ = batches.page(db, 1, after=None, limit=10)
    assert {batch.id for batch in found} == {lives.id, works.id}
    assert {file.batch_id for file in files.dead(db, 10)} == {refused.id}
