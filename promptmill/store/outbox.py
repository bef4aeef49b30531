"""The outbox: events for webhooks, written in the transaction that makes them true, and the
log of every attempt to deliver one. A receiver gets an event at least once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, delete, func, insert, select, tuple_, update

from promptmill.store.database import Database
from promptmill.tables import outbox, webhook_attempts

Place = tuple[float, int]

_TEXT: Final = 500  # characters that are kept of what went wrong
_LOGGED: Final = 50  # attempts that are kept of an event


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event that is due. `attempts`: how often it failed since it was last asked for."""

    id: int
    job_id: int | None
    event: str
    url: str
    payload: Mapping[str, Any]
    attempts: int
    created_at: float
    due_at: float

    @property
    def place(self) -> Place:
        """Where it stands among what is due."""
        return self.due_at, self.id


@dataclass(frozen=True, slots=True)
class Attempt:
    """One delivery that was tried. status: of the receiver's answer; error: why it does not
    count as delivered, None when it does."""

    at: float
    seconds: float
    status: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Logged:
    """An event with all that was tried. due_at: the next attempt; neither due nor sent: it
    was given up."""

    id: int
    event: str
    url: str
    created_at: float
    due_at: float | None
    sent_at: float | None
    attempts: tuple[Attempt, ...]


def enqueue_event(
    conn: Connection,
    *,
    job_id: int | None,
    url: str,
    type: str,
    payload: Mapping[str, Any],
    now: float,
) -> int:
    """Queues an event in the caller's transaction; it leaves within a second or two of the
    commit. payload: what becomes `data`, with an `id` in it; no prompts. job_id: whose log it
    is in, None where there is no job. Returns its number: the receiver sees `evt_NUMBER`."""
    event = {"job_id": job_id, "event": type, "url": url, "payload": dict(payload)}
    added = conn.execute(insert(outbox).values(**event, created_at=now, due_at=now))
    key: Any = added.inserted_primary_key
    return int(key[0])


def due(
    db: Database, limit: int, *, after: Place | None = None, without: Collection[str] = ()
) -> list[Delivery]:
    """The events that are due now, the longest due first, from behind one's place, but for those
    to the URLs `without`."""
    o = outbox.c
    query = (
        select(o.id, o.job_id, o.event, o.url, o.payload, o.attempts, o.created_at, o.due_at)
        .where(o.due_at <= db.now(), o.url.not_in(list(without)))
        .order_by(o.due_at, o.id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(o.due_at, o.id) > tuple_(*after))
    return [Delivery(*row) for row in db.read(lambda conn: conn.execute(query).all())]


def sent(db: Database, id: int, attempt: Attempt) -> None:
    """The receiver took it."""

    def work(conn: Connection) -> None:
        values = {"due_at": None, "sent_at": attempt.at}
        if conn.execute(update(outbox).where(outbox.c.id == id).values(values)).rowcount:
            _note(conn, id, attempt)

    db.write(work)


def failed(db: Database, id: int, due_at: float | None, attempt: Attempt) -> None:
    """Due again at `due_at`; None gives it up."""

    def work(conn: Connection) -> None:
        values = {"due_at": due_at, "attempts": outbox.c.attempts + 1}
        if conn.execute(update(outbox).where(outbox.c.id == id).values(values)).rowcount:
            _note(conn, id, attempt)

    db.write(work)


def _note(conn: Connection, id: int, attempt: Attempt) -> None:
    a = webhook_attempts.c
    last = conn.scalar(select(func.max(a.number)).where(a.event_id == id))
    number = 1 if last is None else last + 1
    conn.execute(
        insert(webhook_attempts).values(
            event_id=id,
            number=number,
            at=attempt.at,
            seconds=attempt.seconds,
            status=attempt.status,
            error=None if attempt.error is None else attempt.error[:_TEXT],
        )
    )
    conn.execute(delete(webhook_attempts).where(a.event_id == id, a.number <= number - _LOGGED))


def log(
    db: Database, job_id: int, *, after: int | None = None, limit: int
) -> tuple[list[Logged], bool]:
    """A job's events, newest first, from behind event `after`, with their attempts, oldest
    first; and whether there are more."""
    o, a = outbox.c, webhook_attempts.c
    mine = select(outbox).where(o.job_id == job_id)
    if after is not None:
        mine = mine.where(o.id < after)

    def work(conn: Connection) -> list[Logged]:
        events = conn.execute(mine.order_by(o.id.desc()).limit(limit + 1)).all()
        tried: dict[int, list[Attempt]] = {event.id: [] for event in events}
        query = select(webhook_attempts).where(a.event_id.in_(tried))
        for row in conn.execute(query.order_by(a.event_id, a.number)):
            tried[row.event_id].append(Attempt(row.at, row.seconds, row.status, row.error))
        return [
            Logged(e.id, e.event, e.url, e.created_at, e.due_at, e.sent_at, tuple(tried[e.id]))
            for e in events
        ]

    found = db.read(work)
    return found[:limit], len(found) > limit


def redeliver(db: Database, job_id: int, event_id: int | None) -> int:
    """Makes one event of a job due now, or (None) all that were given up, with all their
    tries ahead of them. How many; 0 when there is no such event."""
    o = outbox.c
    mine = [o.job_id == job_id]
    if event_id is None:
        mine += [o.due_at.is_(None), o.sent_at.is_(None)]
    else:
        mine += [o.id == event_id]
    again = update(outbox).where(*mine).values(due_at=db.now(), sent_at=None, attempts=0)
    return db.write(lambda conn: conn.execute(again).rowcount)


def forget(conn: Connection, job_id: int) -> None:
    """Removes a job's events and their log."""
    mine = select(outbox.c.id).where(outbox.c.job_id == job_id)
    conn.execute(delete(webhook_attempts).where(webhook_attempts.c.event_id.in_(mine)))
    conn.execute(delete(outbox).where(outbox.c.job_id == job_id))


def retention(db: Database, days: float) -> None:
    """Removes events that are of no job, more than `days` days after they were sent or given
    up; those of a job go with it."""
    o = outbox.c
    old = select(o.id).where(
        o.job_id.is_(None), o.due_at.is_(None), o.created_at < db.now() - days * 86_400
    )

    def work(conn: Connection) -> None:
        conn.execute(delete(webhook_attempts).where(webhook_attempts.c.event_id.in_(old)))
        conn.execute(delete(outbox).where(o.id.in_(old)))

    if db.read(lambda conn: conn.scalar(old.limit(1))) is not None:
        db.write(work)
