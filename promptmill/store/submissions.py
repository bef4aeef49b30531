"""Receiving a submission: the idempotency key, the upload's epoch and heartbeat, segments
as they come, and the one transaction that makes them a queued job."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final, cast

from sqlalchemy import Connection, delete, select, update

from promptmill import errors, jobs
from promptmill.records import Job, LaneSpec, MapBlock, NewJob, Output, Replay, Segment, Upload
from promptmill.store import erasing, insert_ignore, models, parts, rows, tenants
from promptmill.store.database import Database
from promptmill.tables import jobs as table
from promptmill.tables import tenants as tenant_table

_ALPHABET: Final = string.ascii_lowercase + string.digits
_RECEIVING: Final = jobs.JobState.RECEIVING.value
_NEW: Final = {
    "state": _RECEIVING,
    "generation": 0,
    "version": 0,
    "upload_epoch": 0,
    "ended": 0,
    "swept": 0,
}
_LOST: Final = "another upload has taken this idempotency key over, or the job was deleted"


def new_public_id() -> str:
    """`job_` and 20 random characters."""
    return "job_" + "".join(secrets.choice(_ALPHABET) for _ in range(20))


def _head(job: NewJob, now: float) -> dict[str, Any]:
    return {
        "tenant_id": job.tenant_id,
        "verifies": job.verifies,
        "name": job.name,
        "model": job.model,
        "priority": job.priority.value,
        "seed": job.seed,
        "defaults": dict(job.defaults),
        "output": asdict(job.output),
        "metadata": dict(job.metadata),
        "recipe": None if job.recipe is None else dict(job.recipe),
        "webhook": job.webhook,
        "fingerprint": job.fingerprint,
        "expires_at": job.expires_at,
        "total": 0,
        "created_at": now,
        "upload_beat": now,
    }


def begin(
    db: Database, job: NewJob, *, idempotency_key: str | None, silent_after: float = 30.0
) -> Upload | Replay:
    """Reserves the key and makes a job in state receiving. A key whose job was received
    answers `Replay`; one whose upload has been silent for `silent_after` seconds is taken
    over, its segments deleted. Raises `errors.InProgress` while that upload lives,
    `errors.ModelNotFound`, and `errors.NotFound` when the job that it verifies is deleted."""

    def work(conn: Connection) -> Upload | Replay:
        now = db.now()
        models.hold(conn, job.model)
        made = _begin(conn, job, idempotency_key, now)
        return made or _known(conn, job, idempotency_key, now, silent_after)

    begun = db.write(work)
    if isinstance(begun, Upload) and begun.epoch > 0:
        erasing.erase(db, begun.job_id, erasing.SUBMISSION)
    return begun


def _begin(
    conn: Connection, job: NewJob, key: str | None, now: float, **values: Any
) -> Upload | None:
    """A job in state receiving, unless `values` say otherwise; None when the key is there
    already."""
    if job.verifies is not None:
        _require_undeleted(conn, job.verifies)
    fresh = {**_head(job, now), **_NEW, "public_id": new_public_id(), "idempotency_key": key}
    fresh |= values
    made = conn.scalar(insert_ignore(conn, table).returning(table.c.id), fresh)
    return None if made is None else Upload(made, fresh["public_id"], 0, job.output)


def _require_undeleted(conn: Connection, job_id: int) -> None:
    """Locked: whoever deletes that job later finds the one that is begun here."""
    if rows.lock(conn, job_id) is None or conn.scalar(
        select(table.c.deleted_at).where(table.c.id == job_id)
    ):
        raise errors.NotFound("the job to verify was deleted")


def _known(
    conn: Connection, job: NewJob, key: str | None, now: float, silent_after: float
) -> Upload | Replay:
    mine = (table.c.tenant_id == job.tenant_id) & (table.c.idempotency_key == key)
    row = conn.execute(select(table).where(mine).with_for_update()).one()
    if row.state != _RECEIVING:
        return Replay(row.public_id, row.request_hash)
    silence = now - row.upload_beat
    if silence < silent_after:
        raise errors.InProgress(retry_after=max(1.0, silent_after - silence))
    epoch = row.upload_epoch + 1
    taken = {**_head(job, now), "upload_epoch": epoch}
    conn.execute(update(table).where(table.c.id == row.id).values(taken))
    return Upload(row.id, row.public_id, epoch, job.output)


def known(db: Database, tenant_id: int, key: str) -> Job | None:
    """The job that was made under this idempotency key."""
    mine = (table.c.tenant_id == tenant_id) & (table.c.idempotency_key == key)
    received = mine & (table.c.state != _RECEIVING)
    found = db.read(lambda conn: rows.load(conn, received))
    return found[0] if found else None


def _held(conn: Connection, upload: Upload, **values: Any) -> None:
    """Beats the heartbeat, if the upload still owns the job. Raises `errors.TakenOver`."""
    held = conn.execute(
        update(table)
        .where(
            table.c.id == upload.job_id,
            table.c.upload_epoch == upload.epoch,
            table.c.state == _RECEIVING,
            table.c.deleted_at.is_(None),
        )
        .values(**values)
    )
    if held.rowcount != 1:
        raise errors.TakenOver(_LOST)


def beat(db: Database, upload: Upload) -> None:
    """Raises `errors.TakenOver` when the upload was."""
    db.write(lambda conn: _held(conn, upload, upload_beat=db.now()))


def write(
    db: Database, upload: Upload, segments: Sequence[Segment], maps: Sequence[MapBlock]
) -> None:
    """Adds segments and map blocks and beats the heartbeat. All segments of a lane but its
    last are full. Raises `errors.TakenOver` when the upload was."""
    received = sum(segment.count for segment in segments)
    parts.require_aligned(segments)

    def work(conn: Connection) -> None:
        _held(conn, upload, upload_beat=db.now(), total=table.c.total + received)
        parts.put(conn, upload, segments, maps)

    db.write(work)


def finish(
    db: Database,
    upload: Upload,
    lanes: Sequence[LaneSpec],
    segments: Sequence[Segment] = (),
    maps: Sequence[MapBlock] = (),
    *,
    total: int,
    request_hash: str,
    max_queued: int | None,
) -> Job:
    """One transaction: the job is queued, with its lanes, counters, total and the segments
    and map blocks that were not written before. Raises
    `errors.BadRequest` over 64 lanes, `errors.LimitExceeded` over `max_queued` unfinished
    images of the tenant, `errors.TakenOver` when the upload was. After an error
    the upload is still open: abandon it."""
    parts.require_aligned(segments)
    written = db.read(lambda conn: parts.written(conn, upload))
    parts.check_lanes(lanes, written, segments, total)

    def work(conn: Connection) -> Job:
        now = db.now()
        _held(conn, upload, upload_beat=now, total=total, request_hash=request_hash)
        parts.put(conn, upload, segments, maps)
        job = rows.reload(conn, upload.job_id)
        _check_limit(conn, job, max_queued)
        parts.put_lanes(conn, job.id, lanes)
        return rows.change(conn, job, jobs.JobState.QUEUED, now)

    return db.write(work)


def submit(
    db: Database,
    job: NewJob,
    lanes: Sequence[LaneSpec],
    segments: Sequence[Segment],
    maps: Sequence[MapBlock],
    *,
    total: int,
    request_hash: str,
    max_queued: int | None,
) -> Job:
    """`begin` without a key, `write` and `finish` in one transaction. After an error nothing
    is left."""
    parts.require_aligned(segments)
    parts.check_lanes(lanes, (), segments, total)

    def work(conn: Connection) -> Job:
        now = db.now()
        models.hold(conn, job.model)
        end = {"state": jobs.JobState.QUEUED.value, "version": 1}
        begun = _begin(conn, job, None, now, total=total, request_hash=request_hash, **end)
        upload = cast(Upload, begun)  # without a key none is there
        parts.put(conn, upload, segments, maps)
        parts.put_lanes(conn, upload.job_id, lanes)
        made = rows.reload(conn, upload.job_id)
        _check_limit(conn, made, max_queued)
        rows.tell(conn, made, now)
        return made

    return db.write(work)


def _check_limit(conn: Connection, job: Job, max_queued: int | None) -> None:
    if max_queued is None:
        return
    # The tenant's row is locked so that two submissions cannot both take the last room.
    conn.execute(
        select(tenant_table.c.id).where(tenant_table.c.id == job.tenant_id).with_for_update()
    )
    held = tenants.unfinished(conn, job.tenant_id, but=job.id)
    if held + job.counts.total > max_queued:
        raise errors.LimitExceeded(
            f"{held} images are queued and {job.counts.total} more would pass this tenant's "
            f"limit of {max_queued}",
            retry_after=30.0,
        )


def abandon(db: Database, upload: Upload, *, clear: Callable[[], None] | None = None) -> None:
    """Deletes the job with its segments and frees the key. Nothing happens when the upload
    was taken over. clear: deletes the objects that were put for it; without it, or when it
    raises, a tombstone stays, so that the sweep does."""

    def give_up(conn: Connection) -> bool:
        try:
            _held(
                conn,
                upload,
                upload_epoch=upload.epoch + 1,
                deleted_at=db.now(),
                idempotency_key=None,
            )
        except errors.Conflict:
            return False
        return True

    if db.write(give_up):
        erasing.erase(db, upload.job_id, erasing.SUBMISSION)
        if clear is not None:
            clear()
            db.write(lambda conn: conn.execute(delete(table).where(table.c.id == upload.job_id)))
        db.scrub()


def stale(db: Database, silent_after: float) -> list[Upload]:
    """Uploads whose heartbeat has been silent for `silent_after` seconds."""
    query = select(table.c.id, table.c.public_id, table.c.upload_epoch, table.c.output).where(
        rows.IS_LIVE,
        table.c.state == _RECEIVING,
        table.c.deleted_at.is_(None),
        table.c.upload_beat < db.now() - silent_after,
    )
    found = db.read(lambda conn: conn.execute(query).all())
    return [Upload(*row[:3], output=Output(**row.output)) for row in found]
