"""What the store's tests share: submissions of any shape, results, and the check that
counters equal rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import func, select

from promptmill import jobs, segments, tables
from promptmill.jobs import ImageState, Item, Priority
from promptmill.leases import LeasedSpan
from promptmill.models import Caps, Model
from promptmill.records import (
    Job,
    LaneSpec,
    MapBlock,
    NewJob,
    Output,
    Result,
    Segment,
    Upload,
    Work,
)
from promptmill.store import images, models, submissions
from promptmill.store import jobs as stored
from promptmill.store.database import Database

HEAD = NewJob(1, "stub", "a job", Priority.NORMAL, 7, {"steps": 1}, Output())


def items(count: int, prompt: str = "prompt") -> list[Item]:
    return [Item(i, i, 0, f"{prompt} {i}", jobs.derive_seed(7, i), 64, 64) for i in range(count)]


def register(db: Database) -> None:
    """The model of `HEAD`, in a database that the fixture did not make."""
    models.add(db, Model(HEAD.model, Caps(sizes=((64, 64),)), fingerprint=""))


def begin(db: Database, *, key: str | None = None, **head: Any) -> Upload:
    upload = submissions.begin(db, replace(HEAD, **head), idempotency_key=key)
    assert isinstance(upload, Upload)
    return upload


def spread(count: int, lanes: int) -> list[list[int]]:
    """Which indexes stand in which lane: unevenly, so that positions differ from indexes."""
    placed: list[list[int]] = [[] for _ in range(lanes)]
    for index in range(count):
        placed[(index * index + index // 3) % lanes].append(index)
    return placed


def parts(rows: Sequence[Item], lanes: int) -> tuple[list[Segment], list[MapBlock]]:
    """The rows as segments of `lanes` lanes, and the map blocks of more than one."""
    placed = spread(len(rows), lanes)
    made = [
        Segment(lane, first // 1024, first, len(mine[first : first + 1024]), payload)
        for lane, mine in enumerate(placed)
        for first in range(0, len(mine), 1024)
        for payload in [segments.encode([rows[i] for i in mine[first : first + 1024]])]
    ]
    where = {
        index: (lane, position)
        for lane, mine in enumerate(placed)
        for position, index in enumerate(mine)
    }
    blocks = [
        MapBlock(
            first // 1024,
            segments.encode_map([where[i] for i in range(first, min(first + 1024, len(rows)))]),
        )
        for first in range(0, len(rows), 1024)
    ]
    return made, blocks if lanes > 1 else []


def specs_of(count: int, lanes: int) -> list[LaneSpec]:
    return [
        LaneSpec(number, f"lane={number}", 0.1, len(mine))
        for number, mine in enumerate(spread(count, lanes))
        if mine
    ]


def fill(db: Database, upload: Upload, rows: Sequence[Item], lanes: int = 1) -> list[LaneSpec]:
    """Writes the rows as segments of `lanes` lanes."""
    submissions.write(db, upload, *parts(rows, lanes))
    return specs_of(len(rows), lanes)


def submit(
    db: Database,
    count: int,
    *,
    lanes: int = 1,
    key: str | None = None,
    prompt: str = "prompt",
    **head: Any,
) -> Job:
    upload = begin(db, key=key, **head)
    specs = fill(db, upload, items(count, prompt), lanes)
    return submissions.finish(db, upload, specs, total=count, request_hash="hash", max_queued=None)


def now(db: Database, job: Job) -> Job:
    return stored.get(db, None, job.public_id)


def spans(db: Database, job: Job) -> list[LeasedSpan]:
    return [
        LeasedSpan(lane.id, job.id, job.generation, 0, lane.count, 0)
        for lane in stored.lanes(db, job.id)
    ]


def fetch(db: Database, job: Job, *, first: int = 0, count: int | None = None) -> list[Work]:
    """Works of the job in index order."""
    works = images.fetch(db, spans(db, job), images.SegmentCache())
    ordered = sorted(works, key=lambda work: work.item.index)
    return ordered[first : None if count is None else first + count]


def done(work: Work, size: int = 10) -> Result:
    return Result(
        job_id=work.job_id,
        lane=work.lane,
        position=work.position,
        index=work.item.index,
        generation=work.generation,
        state=ImageState.DONE,
        attempt=work.attempt,
        seed=work.item.seed,
        worker="w1",
        fingerprint="f1",
        render_ms=1.5,
        key=f"jobs/{work.job}/g{work.generation}/{work.item.index}.png",
        sha256=hashlib.sha256(work.item.prompt.encode()).digest(),
        bytes=size,
        score=0.5,
    )


def failed(work: Work, code: str = "render_failed") -> Result:
    plain = done(work, 0)
    return replace(
        plain, state=ImageState.FAILED, key=None, sha256=None, score=None,
        error_code=code, error_text=f"{code}: it broke",
    )  # fmt: skip


def commit(db: Database, results: Iterable[Result], shard: int = 0) -> images.Committed:
    return images.commit(db, list(results), shard=shard)


def counted(db: Database, job: Job) -> tuple[int, int, int]:
    """(done, failed, bytes) by a count of the rows."""
    i = tables.images.c

    def of(state: int) -> Any:
        return select(func.count()).where(i.job_id == job.id, i.state == state)

    size = select(func.coalesce(func.sum(i.bytes), 0)).where(i.job_id == job.id)
    return db.read(
        lambda conn: (
            int(conn.scalar(of(tables.DONE)) or 0),
            int(conn.scalar(of(tables.FAILED)) or 0),
            int(conn.scalar(size) or 0),
        )
    )


def check(db: Database, job: Job) -> Job:
    """The invariant: counters equal a count of rows. Returns the job as it is now."""
    current = now(db, job)
    counts = current.counts
    assert (counts.done, counts.failed, counts.bytes) == counted(db, job)
    return current


def everything(db: Database) -> dict[str, int]:
    """Rows of every table."""
    return db.read(
        lambda conn: {
            table.name: conn.scalar(select(func.count()).select_from(table)) or 0
            for table in tables.metadata.sorted_tables
        }
    )
