"""`python -m tests.integration.export_memory FOLDER IMAGES SHARD_IMAGES [FORMAT]`: a job of so
many images whose rows and pictures are put without rendering, planned and built in this
process; prints what it took."""

from __future__ import annotations

import hashlib
import resource
import sys
import threading
import time
from pathlib import Path

from promptmill import exports, jobs, models, segments, tables
from promptmill.blobs.folder import DirBlobs
from promptmill.records import Job, LaneSpec, NewJob, Output, Segment, Upload
from promptmill.store import control, export_plans, images, submissions, tenants
from promptmill.store import exports as stored
from promptmill.store import jobs as stored_jobs
from promptmill.store import models as stored_models
from promptmill.store.database import Database
from tests.integration.api_farm import CAPS, square
from worker.control.exporting import Exporting
from worker.exports.builder import Builder

PARTS = 1000  # images in an object


def item(index: int) -> jobs.Item:
    return jobs.Item(index, index, 0, f"tree number {index}", index, 32, 32, metadata={"n": index})


def rendered(db: Database, blobs: DirBlobs, count: int) -> Job:
    """A completed job: its pictures lie in one object each PARTS."""
    tenant = tenants.ensure_default(db)
    stored_models.register(db, models.Model("squares", CAPS, "f"))
    head = NewJob(tenant.id, "squares", "", jobs.Priority.BULK, 1, {}, Output())
    upload = submissions.begin(db, head, idempotency_key=None)
    assert isinstance(upload, Upload)
    for number, first in enumerate(range(0, count, jobs.SEGMENT)):
        items = [item(i) for i in range(first, min(first + jobs.SEGMENT, count))]
        part = Segment(0, number, first, len(items), segments.encode(items))
        submissions.write(db, upload, [part], [])
    lane = LaneSpec(0, "b", 0.001, count)
    job = submissions.finish(db, upload, [lane], total=count, request_hash="h", max_queued=None)
    [made] = [one.id for one in stored_jobs.lanes(db, job.id)]
    picture = square(item(0))
    for first in range(0, count, PARTS):
        size = min(PARTS, count - first)
        key = f"jobs/{job.public_id}/g0/parts/{first}.tar"
        blobs.create(key, picture * size, content_type="application/x-tar", metadata={})
        sha256 = hashlib.sha256(picture).digest()
        rows = [
            {
                "lane": made,
                "position": first + n,
                "job_id": job.id,
                "index": first + n,
                "generation": 0,
                "state": tables.DONE,
                "attempt": 0,
                "seed": first + n,
                "bytes": len(picture),
                "render_ms": 1.0,
                "finished_at": float(first),
                "worker": "w",
                "fingerprint": "f",
                "sha256": sha256,
                "key": key,
                "offset": n * len(picture),
                "length": len(picture),
            }
            for n in range(size)
        ]
        db.write(lambda conn, rows=rows: conn.execute(tables.images.insert(), rows))  # type: ignore[misc]
    counters = tables.job_counters
    done = counters.update().where(counters.c.job_id == job.id, counters.c.shard == 0)
    db.write(lambda conn: conn.execute(done.values(done=count)))
    begun = tables.jobs.update().where(tables.jobs.c.id == job.id).values(started_at=1.0)
    db.write(lambda conn: conn.execute(begun))
    [finished] = control.finish_ready(db)
    return finished


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(folder: str, count: str, shard_images: str, format: str = "webdataset") -> None:
    root = Path(folder)
    db = Database(f"sqlite:///{root / 'farm.db'}")
    db.migrate()
    blobs = DirBlobs(root / "objects")
    job = rendered(db, blobs, int(count))
    before, begun = peak(), time.monotonic()
    export = stored.create(
        db, job, exports.Format(format), shard_images=int(shard_images), reuse=False
    )
    planner = Exporting(db, stop=threading.Event())
    cache = images.SegmentCache(1 << 20)  # a full one would be mistaken for growth
    builder = Builder(db, blobs, owner="b", lease_seconds=60.0, cache=cache)
    while export_plans.waiting(db):
        planner.step()
        while builder.step():
            pass
    progress = stored.progress(db, export.id)
    print("images", progress.images)
    print("shards", progress.sealed)
    print("bytes", progress.bytes)
    print("seconds", round(time.monotonic() - begun, 1))
    print("before_kb", before)
    print("grown_kb", peak() - before)
    db.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
