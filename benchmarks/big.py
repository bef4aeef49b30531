"""Jobs of millions of images, made in the database without rendering anything, so that a
benchmark can ask how fast they are read, counted, rebuilt and exported."""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Iterator, Sequence
from functools import cache

from sqlalchemy import text

from promptmill import keys, segments, tables
from promptmill.blobs import BlobStore, tar
from promptmill.jobs import SEGMENT, Item, Priority
from promptmill.records import Job, Lane, LaneSpec, NewJob, Output, Segment, Upload
from promptmill.store import jobs, submissions
from promptmill.store.database import Database

BUCKET = "task=text2image,width=64,height=64"
AT_ONCE = 64  # segments in one transaction
PART = 1000  # images in an object
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
    """A queued job of one lane whose first `done` images are finished; they have no objects."""
    job = _queued(db, model, total)
    _finish(db, job, done)
    return jobs.get(db, None, job.public_id)


def rendered(db: Database, blobs: BlobStore, model: str, *, total: int) -> Job:
    """A job of one lane, all of it finished, with a picture of its own for every image, PART
    of them in an object: what a bulk job of small images leaves."""
    job = _queued(db, model, total)
    [lane] = jobs.lanes(db, job.id)
    for first in range(0, total, PART):
        rows = _part(blobs, job, lane, range(first, min(total, first + PART)))
        db.write(lambda conn, rows=rows: conn.execute(tables.images.insert(), rows))  # type: ignore[misc]
    _begun(db, job, total)
    return jobs.get(db, None, job.public_id)


def aged(db: Database, made: Sequence[Job], *, seconds: float) -> None:
    """As if the jobs had finished so many seconds earlier."""
    t = tables.jobs.c
    earlier = tables.jobs.update().where(t.id.in_([job.id for job in made]))
    db.write(lambda conn: conn.execute(earlier.values(finished_at=t.finished_at - seconds)))


def _part(blobs: BlobStore, job: Job, lane: Lane, indexes: range) -> list[dict[str, object]]:
    """The rows of images whose object is put here."""
    pictures = {index: _picture(index) for index in indexes}
    packed, places = bytearray(), []
    for index, data in pictures.items():
        places.append((len(packed) + tar.BLOCK, len(data)))
        packed += tar.member(f"{index:09d}.png", data)
    key = keys.part(job.output, job.public_id, generation=0, lease=f"{indexes.start:09d}")
    blobs.create(key, bytes(packed + tar.END), content_type=tar.CONTENT_TYPE, metadata={})
    usual = {
        "lane": lane.id, "job_id": job.id, "generation": 0, "state": tables.DONE, "attempt": 0,
        "render_ms": 1.0, "finished_at": 1.0, "worker": "w", "fingerprint": "f", "key": key,
    }  # fmt: skip
    return [
        {
            **usual, "position": index, "index": index, "seed": index, "bytes": len(data),
            "sha256": hashlib.sha256(data).digest(), "offset": offset, "length": length,
        }
        for (index, data), (offset, length) in zip(pictures.items(), places, strict=True)
    ]  # fmt: skip


@cache
def _pattern() -> bytes:
    """A PNG of 64x64 of about three kilobytes."""
    import numpy
    from PIL import Image

    noise = numpy.random.default_rng(1).integers(0, 256, (64, 16, 3), dtype=numpy.uint8)
    out = io.BytesIO()
    Image.fromarray(numpy.repeat(noise, 4, axis=1)).save(out, "PNG")
    return out.getvalue()


def _picture(index: int) -> bytes:
    """The same picture, other bytes: the index stands in a text chunk before the end."""
    body = b"tEXtindex\0%d" % index
    chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    pattern = _pattern()
    return pattern[:-12] + chunk + pattern[-12:]


def _queued(db: Database, model: str, total: int) -> Job:
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
    return submissions.finish(
        db, upload, [LaneSpec(0, BUCKET, 0.002, total)], total=total, request_hash="",
        max_queued=None,
    )  # fmt: skip


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
    _begun(db, job, done)


def _begun(db: Database, job: Job, done: int) -> None:
    """The counters say so, too."""
    count = text(
        "UPDATE job_counters SET done = :done, bytes = :bytes WHERE job_id = :job AND shard = 0"
    )
    start = text("UPDATE jobs SET started_at = created_at WHERE id = :job")
    values = {"done": done, "bytes": done * 6000, "job": job.id}
    db.write(lambda conn: (conn.execute(count, values), conn.execute(start, {"job": job.id})))
