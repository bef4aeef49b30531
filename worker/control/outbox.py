"""Sends webhooks from the outbox: an event is written in the transaction that changes its
job and leaves with a signature, again and later after each failure, for a day."""

from __future__ import annotations

import json
import logging
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx

from promptmill.settings import Settings
from promptmill.store import outbox
from promptmill.store.database import Database
from promptmill.store.outbox import Attempt, Delivery, Place
from worker.control import webhook

log = logging.getLogger("promptmill.control")

# Seconds before each further attempt: about a day in all, then the event is given up.
BACKOFF = (5, 30, 120, 600, 1800, 3600, 2 * 3600, 4 * 3600, 7 * 3600, 9 * 3600)
AT_ONCE = 200
PAGES = 25  # of so many events, read in a round at most
GONE = 410  # the receiver says that it wants no more


@dataclass(frozen=True, slots=True)
class Share:
    """Every host belongs to one of `of` shares, so that one that hangs delays no more than
    its own share."""

    number: int = 0
    of: int = 1

    def has(self, host: str) -> bool:
        return zlib.crc32(host.encode()) % self.of == self.number


class Outbox:
    """`sent` and `given_up` count events."""

    def __init__(
        self,
        db: Database,
        settings: Settings,
        *,
        share: Share = Share(),
        find: webhook.Resolve = webhook.resolve,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db = db
        self._key = webhook.key_of(settings.webhook_secret)
        self._any_network = settings.webhook_networks == "any"
        self._share = share
        self._find = find
        self._clock = clock
        self._client = webhook.new_client()
        self._after: Place | None = None
        self._passed: set[str] = set()  # URLs of which nothing more is read in a round
        self.sent = 0
        self.given_up = 0

    def close(self) -> None:
        self._client.close()

    def step(self) -> int:
        """One attempt at events of this share that are due, `AT_ONCE` at most; after a host's
        first failure its other events wait for the next round. Returns the events sent."""
        failed_hosts: set[str] = set()
        sent = tried = 0
        for event in self._due():
            host = host_of(event.url)
            if not self._share.has(host) or host in failed_hosts:
                self._passed.add(event.url)
                continue
            tried += 1
            attempt = self._attempt(event)
            if attempt.error is None:
                outbox.sent(self._db, event.id, attempt)
                sent += 1
            else:
                failed_hosts.add(host)
                self._postpone(event, attempt)
            if tried == AT_ONCE:
                break
        self.sent += sent
        return sent

    def _due(self) -> Iterator[Delivery]:
        """What is due, from behind the place where a round had seen enough: however many events
        wait for one host, those of another come to their turn."""
        self._passed.clear()
        for _ in range(PAGES):
            page = outbox.due(self._db, AT_ONCE, after=self._after, without=self._passed)
            for event in page:
                self._after = event.place
                yield event
            if len(page) < AT_ONCE:
                self._after = None
                return

    def _attempt(self, event: Delivery) -> Attempt:
        now, began = self._clock(), time.monotonic()
        status, error = None, None
        try:
            status = webhook.post(
                self._client,
                webhook.Event(f"evt_{event.id}", event.url, body_of(event)),
                key=self._key,
                now=now,
                find=self._find,
                any_network=self._any_network,
            )
        except (webhook.Refused, OSError, ValueError, httpx.HTTPError, httpx.InvalidURL) as exc:
            error = f"{type(exc).__name__}: {exc}"
        if status is not None and not 200 <= status < 300:
            error = f"HTTP {status}"
        return Attempt(now, round(time.monotonic() - began, 3), status, error)

    def _postpone(self, event: Delivery, attempt: Attempt) -> None:
        over = event.attempts >= len(BACKOFF) or attempt.status == GONE
        due_at = None if over else self._clock() + BACKOFF[event.attempts]
        outbox.failed(self._db, event.id, due_at, attempt)
        self.given_up += over
        log.warning(
            "webhook.given_up" if over else "webhook.postponed",
            extra={"webhook": event.id, "attempts": event.attempts + 1, "error": attempt.error},
        )


def host_of(url: str) -> str:
    try:
        return httpx.URL(url).host
    except httpx.InvalidURL:
        return ""


def body_of(event: Delivery) -> bytes:
    """The event as it is sent. Its data are those of the outbox: ids, state, counts;
    no prompt."""
    body = {
        "id": f"evt_{event.id}",
        "object": "event",
        "type": event.event,
        "created_at": int(event.created_at),
        "data": event.payload,
    }
    return json.dumps(body, separators=(",", ":")).encode()
