"""Jobs for a farm under attack: a client that never gives up, and a thread that keeps a
backlog of it. Remembers what it sent, so that nothing may get lost unnoticed."""

from __future__ import annotations

import itertools
import json
import threading
import time
from random import Random

import httpx

from tests.chaos.world import World

LARGEST_LOOSE = 500  # images of a job that has an object for each
GIVE_UP = 240.0  # seconds after which a submission that nobody takes is an error


class Load:
    """`jobs` by public id. `unclear`: submissions whose first answer was not an acceptance;
    each of them may have been committed and not queued."""

    def __init__(self, world: World, random: Random, *, batch_ms: int) -> None:
        self.world = world
        self.random = random
        self.batch_ms = batch_ms
        self.jobs: dict[str, int] = {}
        self._unclear: set[str] = set()
        self._numbers = itertools.count(1)  # two threads may submit
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble: AssertionError | None = None
        self._http = httpx.Client(base_url=world.farm.http.base_url, timeout=10)

    @property
    def unclear(self) -> int:
        return len(self._unclear)

    @property
    def images(self) -> int:
        return sum(self.jobs.values())

    def submit(self, count: int) -> str:
        """One job of `count` images, packed; every fifth has an object an image, and is small:
        each is read again in the end. Returns its public id."""
        name = f"{self.world.stack}-{next(self._numbers)}"
        packing = "image" if self.random.random() < 0.2 else "tar"
        count = min(count, LARGEST_LOOSE) if packing == "image" else count
        query = {"packing": packing, "steps": str(self.batch_ms), "name": name}
        body = "".join(json.dumps({"prompt": f"{name} picture {i}"}) + "\n" for i in range(count))
        deadline = time.monotonic() + GIVE_UP
        while time.monotonic() < deadline:
            if id := self._try(body, query, key=name):
                self.jobs[id] = count
                return id
            time.sleep(0.1)
        raise AssertionError(f"nobody took {name} in {GIVE_UP:g} s")

    def _try(self, body: str, query: dict[str, str], *, key: str) -> str:
        """The job's id; empty while nobody takes it: an upload that died holds its key until
        it has been silent for half a minute."""
        headers = {"content-type": "application/x-ndjson", "idempotency-key": key}
        try:
            answer = self._http.post("/v1/jobs", params=query, content=body, headers=headers)
        except httpx.TransportError:
            self._unclear.add(key)
            return ""
        if answer.status_code in (200, 202):
            return str(answer.json()["id"])
        if answer.status_code == 409 and answer.json()["error"]["code"] == "in_progress":
            return ""
        assert answer.status_code >= 500, answer.text
        self._unclear.add(key)
        return ""

    # in the background

    def start(self, *, backlog: int, largest: int) -> None:
        """Keeps at least `backlog` images open, in jobs of up to `largest`."""

        def run() -> None:
            try:
                while not self._over.wait(0.2):
                    if self.images - self._done() < backlog:
                        self.submit(self.random.randint(1, largest))
            except AssertionError as error:
                self._trouble = error

        self._thread = threading.Thread(target=run, name="load", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(GIVE_UP)
        self._over.clear()
        if self._trouble is not None:
            raise self._trouble

    def _done(self) -> int:
        try:
            return self.world.rows()
        except Exception:  # whatever its driver says of a database that is down
            return 0

    def close(self) -> None:
        self._http.close()
