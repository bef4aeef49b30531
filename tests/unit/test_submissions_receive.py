"""A submission through the real store: what is kept, what is left behind when it fails,
idempotency, takeover, heartbeat."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import func, select

from api.sources import Copies
from api.submissions import Limits, Received, Submission, receive
from api.submissions.digest import Digest
from api.submissions.lanes import Lanes
from api.submissions.rows import Draft, Rows
from api.submissions.sources import Taken
from promptmill import errors, jobs, keys, segments, tables
from promptmill.blobs.fake import MemoryBlobs
from promptmill.records import MapBlock, Segment, Upload
from promptmill.store import control, images, submissions, tenants
from promptmill.store import jobs as stored
from promptmill.store import models as registry
from promptmill.store.database import Database
from tests.unit.submissions_kit import (
    RICH,
    STUB,
    cut,
    document,
    drafts,
    gz,
    lines,
    opened,
    read,
    refusal,
    sha,
)

BLOBS = MemoryBlobs()
SOURCES: dict[str, Any] = {
    "read": read,
    "copies": lambda upload: Copies(BLOBS, upload.output, upload.public_id),
}


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    yield from migrated(f"sqlite:///{tmp_path / 'test.db'}")


@pytest.fixture
def any_db(database_url: str) -> Iterator[Database]:
    """SQLite and Postgres."""
    yield from migrated(database_url)


def migrated(url: str) -> Iterator[Database]:
    database = Database(url)
    database.migrate()
    tenants.ensure_default(database)
    for model in (STUB, RICH):
        registry.register(database, model)
    yield database
    database.close()


def receiving_module() -> ModuleType:
    """The module that the package's function `receive` hides."""
    return import_module("api.submissions.receive")


def take(db: Database, submission: Submission, max_queued: int | None = None) -> Received:
    return receive(db, submission, costs={}, max_queued=max_queued, **SOURCES)


def counts(db: Database) -> dict[str, int]:
    def work(conn: object) -> dict[str, int]:
        return {
            table.name: conn.scalar(select(func.count()).select_from(table))  # type: ignore[attr-defined]
            for table in tables.metadata.sorted_tables
        }

    return db.read(work)


def many(n: int) -> bytes:
    return lines(
        *[
            {"prompt": f"prompt {i}", "size": "64x64" if i % 3 else "128x128", "key": i}
            for i in range(n)
        ]
    )


@pytest.mark.servers
def test_what_is_received_is_what_is_kept(any_db: Database) -> None:
    db = any_db
    body = many(5000)
    received = receive(
        db,
        opened(body, query=[("seed", "4"), ("name", "x")]),
        costs={"task=text2image,width=64,height=64": 0.5},
        max_queued=None,
        **SOURCES,
    )
    job = received.job
    assert (job.state, job.counts.total, received.replay) == (jobs.JobState.QUEUED, 5000, False)
    assert sorted((lane.count, lane.cost) for lane in stored.lanes(db, job.id)) == [
        (1667, 0.01),
        (3333, 0.5),
    ]
    kept = []
    after: int | None = None
    while True:
        page, more = images.page(db, job, after=after, limit=1000)
        kept += [image.item for image in page]
        if not more:
            break
        after = kept[-1].index
    assert kept == [draft.item() for draft in drafts(opened(body, query=[("seed", "4")]))]


def test_one_lane_needs_no_map(db: Database) -> None:
    take(db, opened(lines(*[{"prompt": "a"}] * 1500)))
    found = counts(db)
    assert (found["segments"], found["row_map"], found["lanes"]) == (2, 0, 1)


@pytest.mark.parametrize("late", [0, 1, 1023, 1024, 1025, 2500])
def test_lanes_and_their_map_agree(late: int) -> None:
    """The second lane opens after `late` rows."""
    rows = [{"prompt": str(i)} for i in range(late)]
    rows += [{"prompt": str(i), "size": "128x128" if i % 2 else "64x64"} for i in range(late, 4000)]
    lanes = Lanes(STUB.caps)
    parts: list[Segment | MapBlock] = []
    made = drafts(opened(lines(*rows)))
    for draft in made:
        if (segment := lanes.add(draft)) is not None:
            parts.append(segment)
            parts += lanes.blocks()
    parts += lanes.finish()
    blocks = [part for part in parts if isinstance(part, MapBlock)]
    assert [block.block for block in blocks] == list(range(4))
    places = [place for block in blocks for place in segments.decode_map(block.payload)]
    items: dict[tuple[int, int], jobs.Item] = {}
    for part in parts:
        if isinstance(part, Segment):
            assert part.first == part.number * jobs.SEGMENT
            for offset, item in enumerate(segments.decode(part.payload)):
                items[part.lane, part.first + offset] = item
    assert [items[place] for place in places] == [draft.item() for draft in made]
    assert sum(spec.count for spec in lanes.specs({})) == 4000


BAD = {
    "bad json late": (many(3000) + b"{", "application/x-ndjson", {}),
    "truncated gzip": (gz(many(3000))[:-9], "application/x-ndjson", {}),
    "wrong type": (many(2000) + lines({"prompt": 5}), "application/x-ndjson", {}),
    "no rows": (b"\n\n", "application/x-ndjson", {}),
    "no prompt column": (b"a,b\n1,2\n", "text/csv", {}),
    "too many rows": (many(3000), "application/x-ndjson", {"limits": Limits(max_rows=2999)}),
    "a line too long": (
        many(1500) + b"x" * 5000,
        "application/x-ndjson",
        {"limits": Limits(max_line_bytes=4000)},
    ),
    "endless template": (b'{"template":"__x__","wildcards":{"x":["__x__"]}}', "application/json", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_submission_leaves_nothing_behind(db: Database, name: str) -> None:
    body, kind, more = BAD[name]
    before = counts(db)
    error = refusal(lambda: take(db, opened(body, kind, key="k", **more)))
    assert 400 <= error.status < 500
    assert counts(db) == before
    take(db, opened(lines({"prompt": "a"}), key="k"))  # the key is free


def test_a_sender_that_goes_away_leaves_nothing_behind(db: Database) -> None:
    def broken() -> Iterator[bytes]:
        yield many(3000)
        raise ConnectionResetError

    before = counts(db)
    with pytest.raises(ConnectionResetError):
        take(db, opened(broken(), key="k"))
    assert counts(db) == before


def test_over_the_tenants_limit(db: Database) -> None:
    before = counts(db)
    error = refusal(lambda: take(db, opened(many(100)), max_queued=99))
    assert error.status == 429
    assert counts(db) == before
    assert take(db, opened(many(100)), max_queued=100).job.counts.total == 100


def test_more_than_64_lanes(db: Database) -> None:
    before = counts(db)
    submission = document(model="rich", prompts=["a"], steps=list(range(1, 51)), guidance=[1, 2])
    error = refusal(lambda: take(db, submission))
    assert (error.status, error.param) == (400, "task")
    assert "64" in error.message
    assert counts(db) == before


def test_the_same_key_and_body_is_the_same_job(db: Database) -> None:
    body = many(2000)
    first = take(db, opened(body, query=[("n", "2")], key="k"))
    before = counts(db)
    for again in (
        opened(body, query=[("n", "2")], key="k", chunk=777),
        opened(gz(body), query=[("n", "2")], key="k"),
        opened(body.replace(b"\n", b"\r\n\n"), query=[("n", "2")], key="k"),
    ):
        received = take(db, again)
        assert received.replay
        assert received.job.public_id == first.job.public_id
    assert counts(db) == before


def test_the_same_key_with_another_body_is_refused(db: Database) -> None:
    take(db, opened(many(100), key="k"))
    before = counts(db)
    for other in (
        opened(many(99), key="k"),
        opened(many(101), key="k"),
        opened(many(100).replace(b"prompt 7", b"prompt 8"), key="k"),
        opened(many(100), query=[("n", "2")], key="k"),
        opened(many(100), query=[("name", "x")], key="k"),
    ):
        assert refusal(lambda other=other: take(db, other)).code == "idempotency_mismatch"
    assert counts(db) == before


def test_order_of_variables_is_part_of_the_request(db: Database) -> None:
    fields = {"template": "{a}{b}", "idempotency_key": "k"}
    take(db, document(variables={"a": ["1"], "b": ["2"]}, **fields))
    assert take(db, document(variables={"a": ["1"], "b": ["2"]}, **fields)).replay
    error = refusal(lambda: take(db, document(variables={"b": ["2"], "a": ["1"]}, **fields)))
    assert error.code == "idempotency_mismatch"


def test_a_live_upload_holds_its_key_and_a_silent_one_is_taken_over(db: Database) -> None:
    head = opened(b"", key="k").head
    begun = submissions.begin(db, head.job, idempotency_key="k")
    error = refusal(lambda: take(db, opened(many(10), key="k")))
    assert (error.code, error.status) == ("in_progress", 409)
    assert error.retry_after
    taken = submissions.begin(db, head.job, idempotency_key="k", silent_after=0.0)
    assert isinstance(begun, Upload)
    assert isinstance(taken, Upload)
    assert taken.epoch == begun.epoch + 1
    submissions.abandon(db, begun)  # no longer its own: without effect
    assert refusal(lambda: take(db, opened(many(10), key="k"))).code == "in_progress"
    submissions.abandon(db, taken)
    assert take(db, opened(many(10), key="k")).job.counts.total == 10


def test_the_upload_that_lost_its_key_stops_and_harms_nothing(db: Database) -> None:
    def slow() -> Iterator[bytes]:
        yield many(3000)
        head = opened(b"", key="k").head
        winner = submissions.begin(db, head.job, idempotency_key="k", silent_after=0.0)
        winners.append(winner)
        yield many(20_000)

    winners: list[object] = []
    error = refusal(lambda: take(db, opened(slow(), key="k")))
    assert error.code == "conflict"
    submissions.beat(db, winners[0])  # type: ignore[arg-type]


def test_a_last_batch_that_cannot_be_written_refuses_the_submission(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written while the end of the body is read, and its error must not be missed."""
    before, real, calls = counts(db), submissions.write, []

    def write(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise errors.DatabaseDown
        real(*args)

    monkeypatch.setattr(submissions, "write", write)
    body = lines(*[{"prompt": str(number)} for number in range(16 * jobs.SEGMENT + 5)])
    assert refusal(lambda: take(db, opened(body, key="k"))).code == errors.DatabaseDown.code
    assert (len(calls), counts(db)) == (2, before)
    monkeypatch.setattr(submissions, "write", real)
    assert take(db, opened(body, key="k")).job.counts.total == 16 * jobs.SEGMENT + 5


def test_the_request_hash_does_not_depend_on_the_cut() -> None:
    def digest(chunk: int) -> str:
        submission = opened(cut(many(600), chunk))
        made = Digest(submission.head.canonical, submission.progress)
        assert sum(1 for _ in made.watch(submission.rows)) == 600
        return made.hexdigest()

    assert digest(13) == digest(4096) == digest(1 << 20)


def test_a_small_document_is_one_transaction(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is refused, too, leaves nothing; larger ones and keys begin an upload."""
    begun: list[object] = []
    begin, written = submissions.begin, []
    monkeypatch.setattr(submissions, "begin", lambda *a, **k: begun.append(a) or begin(*a, **k))
    write = db.write
    monkeypatch.setattr(db, "write", lambda work: written.append(work) or write(work))
    taken = take(db, document(prompts=["a cat", "a dog"], model="stub")).job
    assert (taken.state, taken.counts.total) == (jobs.JobState.QUEUED, 2)
    assert (begun, len(written)) == ([], 1)
    with pytest.raises(errors.LimitExceeded):
        take(db, document(prompts=["a cat"] * 3, model="stub"), max_queued=4)
    assert stored.page(db, 1, after=None, limit=10)[0] == [taken]
    many = [f"thing {number}" for number in range(9 * jobs.SEGMENT)]
    assert take(db, document(prompts=many, model="stub")).job.counts.total == len(many)
    assert len(begun) == 1


def test_a_slow_upload_is_kept_alive(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving_module(), "BEAT", 0.05)
    beats: list[float] = []
    seen = threading.Event()
    real = submissions.beat

    def beat(*args: object) -> None:
        real(*args)  # type: ignore[arg-type]
        beats.append(time.monotonic())
        if len(beats) == 3:
            seen.set()

    monkeypatch.setattr(submissions, "beat", beat)

    def slow() -> Iterator[bytes]:
        yield many(10)
        assert seen.wait(20)
        yield many(10)

    assert take(db, opened(slow())).job.counts.total == 20
    after = len(beats)
    time.sleep(0.15)
    assert len(beats) == after  # it ends with the upload


def test_an_upload_that_stands_still_is_not(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving_module(), "BEAT", 0.02)
    monkeypatch.setattr(receiving_module(), "STALLED", 0.0)
    beats: list[object] = []
    monkeypatch.setattr(submissions, "beat", lambda *args: beats.append(args))

    def still() -> Iterator[bytes]:
        yield many(10)
        time.sleep(0.3)

    take(db, opened(still()))
    assert not beats


def test_a_database_that_fails_while_abandoning_hides_no_error(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object, **__: object) -> None:
        raise errors.DatabaseDown

    monkeypatch.setattr(submissions, "abandon", down)
    assert refusal(lambda: take(db, opened(b"{"))).code == "invalid_row"


def boats(rows: int) -> Iterator[bytes]:
    for start in range(0, rows, 500):
        yield b"".join(
            b'{"prompt":"a painting of boat number %d on a lake","size":"%s"}\n'
            % (i, b"64x64" if i % 2 else b"128x128")
            for i in range(start, start + 500)
        )


def test_drafts_are_lazy() -> None:
    submission = document(prompts=["a"], n=10_000, seed=list(range(1000)))
    rows = Rows(submission.head, submission.limits, Taken(read, None), textual=False)
    made = iter(rows.drafts(submission.rows))
    assert isinstance(next(made), Draft)
    assert rows.images == 10_000_000


def test_sources_are_copied_once_to_the_job(db: Database) -> None:
    rows = [{"prompt": "a", "source": f"file_{1 + i % 2 * 10}"} for i in range(6)]
    job = take(db, opened(lines(*rows), query=[("model", "rich"), ("task", "img2img")])).job
    page, _ = images.page(db, job, after=None, limit=10)
    assert [image.item.source for image in page] == [sha("file_1"), sha("file_11")] * 3
    prefix = keys.sources(job.output, job.public_id)
    copied = {stored.key: BLOBS.read(stored.key) for stored in BLOBS.list(prefix)}
    assert copied == {prefix + sha(ref): read(ref) for ref in ("file_1", "file_11")}
    assert {image.item.strength for image in page} == {0.8}


def test_a_refused_submission_leaves_no_copy_behind(db: Database) -> None:
    before, objects = counts(db), {stored.key for stored in BLOBS.list("jobs/")}
    query = [("model", "rich"), ("task", "img2img")]
    good = [{"prompt": "a", "source": f"file_{'x' * i}"} for i in range(20)]
    for bad in ({"prompt": "a", "source": "gone"}, {"prompt": "a"}, {"prompt": ""}):
        error = refusal(lambda b=bad: take(db, opened(lines(*good, b), query=query)))  # type: ignore[misc]
        assert (error.status, error.line) == (400, 21)
        assert error.param == ("source" if bad["prompt"] else "prompt")
    assert counts(db) == before
    assert {stored.key for stored in BLOBS.list("jobs/")} == objects


def test_copies_that_cannot_be_deleted_leave_a_tombstone_for_the_sweep(db: Database) -> None:
    class Stuck(MemoryBlobs):
        def delete(self, keys: object) -> None:
            raise errors.StorageDown()

    stuck = Stuck()
    rows = [{"prompt": "a", "source": "file_1"}, {"prompt": "a", "source": "gone"}]
    with pytest.raises(errors.BadRow):
        receive(
            db,
            opened(lines(*rows), query=[("model", "rich"), ("task", "img2img")]),
            costs={},
            max_queued=None,
            read=read,
            copies=lambda upload: Copies(stuck, upload.output, upload.public_id),
        )
    [grave] = control.tombstones(db)
    assert [stored.key for stored in stuck.list(keys.job_prefix(grave.output, grave.public_id))]
