"""For the tests of the API: the real application behind a real server in a thread, and a
tiny worker that leases, renders squares of one colour, commits and acknowledges."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import PIL.Image
import sqlalchemy as sa

from api import app as api_app
from promptmill import blobs, jobs, keys, models, records
from promptmill.redis_queue import RedisQueue
from promptmill.settings import Settings
from promptmill.store import images, tenants
from promptmill.store import models as stored_models
from promptmill.store.database import Database
from tests.servers import wait_until

FINGERPRINT = "fp-squares-1"
CAPS = models.Caps(
    sizes=((64, 64), (32, 32)),
    parameters=("steps", "negative_prompt"),
    steps=(1, 1, 50),
    batch_shapes=(1, 2, 4, 8),
    batch_invariant=True,
    loras=("ink",),
    cost=0.001,
)


def square(item: jobs.Item, twist: int = 0) -> bytes:
    """The picture of an item: one colour, from prompt and seed."""
    digest = hashlib.sha256(f"{item.prompt}:{item.seed}:{twist}".encode()).digest()
    out = io.BytesIO()
    PIL.Image.new("RGB", (item.width, item.height), tuple(digest[:3])).save(out, "PNG")
    return out.getvalue()


@dataclass
class Worker:
    """Works until nothing is queued. A prompt that starts with "fail" fails. `twist`
    changes every byte, `fingerprint` says so."""

    farm: ApiFarm
    name: str = "w1"
    twist: int = 0
    fingerprint: str = FINGERPRINT

    def report(self, **told: Any) -> None:
        status = {"state": "idle", "model": self.farm.model, "fingerprint": self.fingerprint}
        self.farm.queue.report(self.name, status | told, ttl=30.0)

    def batch(self, want: int = 8) -> int:
        """One lease; how many images it finished."""
        lease = self.farm.queue.lease(self.name, want, ttl=30.0)
        if lease is None:
            return 0
        works = images.fetch(self.farm.db, lease.spans, images.SegmentCache())
        results = [self._result(work) for work in works]
        images.commit(self.farm.db, results, shard=0)
        self.farm.queue.ack(lease.id)
        for public_id in {work.job for work in works}:
            self.farm.queue.publish(public_id)
        return len(results)

    def drain(self) -> int:
        total = 0
        while done := self.batch():
            total += done
        return total

    def _result(self, work: records.Work) -> records.Result:
        item = work.item
        result = records.Result(
            job_id=work.job_id,
            lane=work.lane,
            position=work.position,
            index=item.index,
            generation=work.generation,
            state=jobs.ImageState.FAILED,
            attempt=work.attempt,
            seed=item.seed,
            worker=self.name,
            fingerprint=self.fingerprint,
            render_ms=1.5,
        )
        if item.prompt.startswith("fail"):
            return replace(result, error_code="render_failed", error_text="no such picture")
        data = square(item, self.twist)
        key = keys.image(work.output, work.job, generation=work.generation, index=item.index)
        stored = self.farm.blobs.create(key, data, content_type="image/png", metadata={})
        return replace(
            result,
            state=jobs.ImageState.DONE,
            key=key,
            sha256=bytes.fromhex(stored.sha256),
            bytes=stored.size,
        )


class ApiFarm:
    """An API with a database, a queue and a folder of its own."""

    def __init__(self, folder: Path, redis_url: str, **options: Any) -> None:
        self.folder = folder
        defaults: dict[str, Any] = {
            "data_dir": folder,
            "redis_url": redis_url,
            "model": f"squares-{uuid.uuid4().hex[:8]}",
        }
        self.settings = Settings(**{**defaults, **options})
        self.model = self.settings.model_name
        self.db = Database(self.settings.database)
        self.db.migrate()
        self.blobs = blobs.open_store(self.settings)
        self.queue = RedisQueue(redis_url, self.model)
        self.queue.set_epoch(self.queue.begin_rebuild())
        self.tenant = tenants.ensure_default(self.db)
        stored_models.register(
            self.db, models.Model(self.model, CAPS, FINGERPRINT, "squares of one colour")
        )
        self.worker = Worker(self)

    def __enter__(self) -> Self:
        self.socket = api_app.listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.app = api_app.create_app(self.settings)
        self.server = api_app.server_of(self.app)
        self._thread = threading.Thread(
            target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True
        )
        self._thread.start()
        wait_until(lambda: self.server.started, seconds=15, what="the API starts")
        self.http = httpx.Client(base_url=self.url, timeout=30)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.http.close()
        self.server.should_exit = True
        self._thread.join(15)
        self.socket.close()
        self.queue.close()
        self.blobs.close()
        self.db.close()

    def submit(self, rows: Sequence[str | dict[str, Any]], **query: str) -> dict[str, Any]:
        answer = self.post_rows(rows, headers=None, **query)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def post_rows(
        self,
        rows: Sequence[str | dict[str, Any]],
        *,
        headers: dict[str, str] | None = None,
        **query: str,
    ) -> httpx.Response:
        body = "".join(
            json.dumps({"prompt": row} if isinstance(row, str) else row) + "\n" for row in rows
        )
        kind = {"content-type": "application/x-ndjson"}
        return self.http.post(
            "/v1/jobs", params=query, content=body, headers=kind | (headers or {})
        )

    def job(self, id: str) -> dict[str, Any]:
        answer = self.http.get(f"/v1/jobs/{id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def images(self, id: str, **query: Any) -> list[dict[str, Any]]:
        answer = self.http.get(f"/v1/jobs/{id}/images", params=query)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"])

    def footprint(self) -> dict[str, int]:
        """How much there is of everything: rows of each table, keys, files."""
        return {**self._rows(), "redis": self._keys(), "files": self._files()}

    def _rows(self) -> dict[str, int]:
        def count(conn: sa.Connection) -> dict[str, int]:
            names = sa.inspect(conn).get_table_names()
            return {
                name: int(conn.exec_driver_sql(f'SELECT count(*) FROM "{name}"').scalar() or 0)
                for name in names
            }

        return self.db.read(count)

    def _keys(self) -> int:
        import redis

        client = redis.Redis.from_url(self.settings.redis)
        try:
            return sum(1 for _ in client.scan_iter(match=f"*{self.model}*"))
        finally:
            client.close()

    def _files(self) -> int:
        root = self.folder / "objects"
        return sum(1 for path in root.rglob("*") if path.is_file())


Event = tuple[str, dict[str, Any], str | None]  # name, data, id


def each(response: httpx.Response) -> Iterator[Event]:
    """The server-sent events, as they come."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        if "event" in fields:
            yield fields["event"], json.loads(fields["data"]), fields.get("id")
        fields = {}


def events(response: httpx.Response, until: Callable[[str, dict[str, Any]], bool]) -> list[Event]:
    """The server-sent events up to the one that `until` accepts, or to the end."""
    found: list[Event] = []
    for event in each(response):
        found.append(event)
        if until(event[0], event[1]):
            break
    return found
