"""Jobs of millions of images, made in the database without rendering anything, so that a
benchmark can ask how fast they are read, counted and rebuilt."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import text

from promptmill import segments
from promptmill.jobs import SEGMENT, Item, Priority
from promptmill.records import Job, LaneSpec, NewJob, Output, Segment, Upload
from promptmill.store import jobs, submissions
from promptmill.store.database import Database

BUCKET = "task=text2image,width=64,height=64"
AT_ONCE = 64  # segments in one transaction
_ROWS = """
INSERT INTO images (lane, position, job_id, "index", generation, state, attempt, seed, bytes,
    render_ms, finished_at, worker, fingerprint, sha256, key)
SELECT :lane, n, :job, n, 0, 2, 0, n, 6000, 1.0, 1.0, 'w', 'f', {sha256}, 'jobs/big/' || n
FROM {numbers}
"""
_DIALECTS = {
    "sqlite": {
        "sha256": "randomblob(32)",
        "numbers": "(WITH RECURSIVE s(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM s"
        " WHERE n + 1 < :end) SELECT n FROM s)",
    },
    "postgresql": {
        "sha256": "sha256(n::text::bytea)",
        "numbers": "(SELECT generate_series(CAST(:first AS int), CAST(:end AS int) - 1) AS n) s",
    },
}


def make(db: Database, model: str, *, total: int, done: int) -> Job:
    """A queued job of one lane whose first `done` images are finished."""
    head = NewJob(
        tenant_id=1, model=model, name=f"{total} images", priority=Priority.NORMAL, seed=0,
        defaults={}, output=Output(),
    )  # fmt: skip
    upload = submissions.begin(db, head, idempotency_key=None)
    assert isinstance(upload, Upload)
    parts: list[Segment] = []
    for part in _segments(total):
        parts.append(part)
        if len(parts) == AT_ONCE:
            submissions.write(db, upload, parts, [])
            parts = []
    submissions.write(db, upload, parts, [])
    job = submissions.finish(
        db, upload, [LaneSpec(0, BUCKET, 0.002, total)], total=total, request_hash="",
        max_queued=None,
    )  # fmt: skip
    _finish(db, job, done)
    return jobs.get(db, None, job.public_id)


def _segments(total: int) -> Iterator[Segment]:
    for number, first in enumerate(range(0, total, SEGMENT)):
        count = min(SEGMENT, total - first)
        rows = range(first, first + count)
        made = [Item(n, n, 0, f"picture number {n}", n, 64, 64) for n in rows]
        yield Segment(0, number, first, count, segments.encode(made))


def _finish(db: Database, job: Job, done: int) -> None:
    [lane] = jobs.lanes(db, job.id)
    statement = text(_ROWS.format(**_DIALECTS[db.dialect]))
    for first in range(0, done, 100_000):
        values = {"lane": lane.id, "job": job.id, "first": first, "end": min(done, first + 100_000)}
        db.write(lambda conn, values=values: conn.execute(statement, values))  # type: ignore[misc]
    count = text(
        "UPDATE job_counters SET done = :done, bytes = :bytes WHERE job_id = :job AND shard = 0"
    )
    start = text("UPDATE jobs SET started_at = created_at WHERE id = :job")
    values = {"done": done, "bytes": done * 6000, "job": job.id}
    db.write(lambda conn: (conn.execute(count, values), conn.execute(start, {"job": job.id})))
