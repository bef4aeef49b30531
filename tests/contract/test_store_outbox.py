"""The outbox keeps a log of every attempt, and secrets are made once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from promptmill.store import control, deletion, jobs, outbox, secrets
from promptmill.store.database import Database
from tests.contract import store_kit as kit

REFUSED = outbox.Attempt(1000.0, 0.25, 503, "HTTP 503")
TAKEN = outbox.Attempt(1005.0, 0.02, 204, None)


def test_every_attempt_is_in_the_log_of_its_job_only(db: Database) -> None:
    job = kit.submit(db, 1, webhook="http://hook")
    other = kit.submit(db, 1, webhook="http://other")
    (mine, _) = outbox.due(db, 10)
    outbox.failed(db, mine.id, db.now() - 1, REFUSED)
    outbox.sent(db, mine.id, TAKEN)
    (found,), more = outbox.log(db, job.id, limit=10)
    assert (found.id, found.event, found.url, more) == (mine.id, "job.queued", "http://hook", False)
    assert found.attempts == (REFUSED, TAKEN)
    assert (found.due_at, found.sent_at) == (None, TAKEN.at)
    (untried,), _ = outbox.log(db, other.id, limit=10)
    assert untried.attempts == () and untried.due_at is not None


def test_pages_of_the_log_are_newest_first(db: Database) -> None:
    job = kit.submit(db, 1, webhook="http://hook")
    jobs.pause(db, 1, job.public_id)
    jobs.resume(db, 1, job.public_id)
    first, more = outbox.log(db, job.id, limit=2)
    assert [e.event for e in first] == ["job.queued", "job.paused"] and more
    rest, more = outbox.log(db, job.id, after=first[-1].id, limit=2)
    assert [e.event for e in rest] == ["job.queued"] and not more


def test_what_was_given_up_is_asked_for_again(db: Database) -> None:
    job = kit.submit(db, 1, webhook="http://hook")
    jobs.pause(db, 1, job.public_id)
    lost, taken = outbox.due(db, 10)
    outbox.failed(db, lost.id, None, REFUSED)
    outbox.sent(db, taken.id, TAKEN)
    assert outbox.due(db, 10) == []
    assert outbox.redeliver(db, job.id, None) == 1
    (again,) = outbox.due(db, 10)
    assert (again.id, again.attempts) == (lost.id, 0)
    assert outbox.redeliver(db, job.id, taken.id) == 1
    assert {event.id for event in outbox.due(db, 10)} == {lost.id, taken.id}
    other = kit.submit(db, 1)
    assert outbox.redeliver(db, other.id, taken.id) == 0, "another job's event"


def test_a_log_does_not_grow_without_end(db: Database) -> None:
    job = kit.submit(db, 1, webhook="http://hook")
    (event,) = outbox.due(db, 10)
    for number in range(55):
        outbox.failed(db, event.id, db.now(), outbox.Attempt(float(number), 0.0, None, "x" * 900))
    (found,), _ = outbox.log(db, job.id, limit=1)
    assert [attempt.at for attempt in found.attempts] == [float(n) for n in range(5, 55)]
    assert len(found.attempts[0].error or "") == 500


def test_events_without_a_job_are_delivered_too(db: Database) -> None:
    db.write(
        lambda conn: outbox.enqueue_event(
            conn, job_id=None, url="http://hook", type="batch.failed", payload={"id": "b"}, now=7.0
        )
    )
    (event,) = outbox.due(db, 10)
    assert (event.job_id, event.event, event.payload, event.created_at) == (
        None,
        "batch.failed",
        {"id": "b"},
        7.0,
    )


def test_a_deleted_job_leaves_no_log(db: Database) -> None:
    job = kit.submit(db, 1, webhook="http://hook")
    (event,) = outbox.due(db, 10)
    outbox.failed(db, event.id, db.now(), REFUSED)
    kit.commit(db, [kit.done(work) for work in kit.fetch(db, job)])
    jobs.cancel(db, 1, job.public_id)
    control.finish_cancelling(db, job.id)
    deletion.delete(db, 1, job.public_id)
    assert outbox.log(db, job.id, limit=10) == ([], False)
    outbox.sent(db, event.id, TAKEN)  # an attempt that was under way notes nothing
    count = db.read(lambda c: c.exec_driver_sql("SELECT count(*) FROM webhook_attempts").scalar())
    assert count == 0


def test_a_secret_is_made_once_whoever_asks_first(db: Database) -> None:
    made = iter(range(100))
    with ThreadPoolExecutor(8) as pool:
        asked = [
            pool.submit(secrets.get, db, secrets.LINKS, lambda: bytes([next(made)]) * 32)
            for _ in range(16)
        ]
        found = {future.result() for future in asked}
    assert len(found) == 1
    assert secrets.get(db, secrets.MANIFESTS, lambda: b"m") == b"m"
