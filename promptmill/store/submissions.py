"""Receiving a submission: the idempotency key, the upload's epoch and heartbeat, segments
as they come, and the one transaction that makes them a queued job."""

from __future__ import annotations

import secrets
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import Connection, delete, func, insert, select, update

from promptmill import errors, jobs, segments
from promptmill.records import Job, LaneSpec, MapBlock, NewJob, Output, Replay, Segment, Upload
from promptmill.store import erasing, insert_ignore, rows, tenants
from promptmill.store.database import Database
from promptmill.tables import job_counters, lanes, row_map
from promptmill.tables import jobs as table
from promptmill.tables import segments as segment_table
from promptmill.tables import tenants as tenant_table

_ALPHABET: Final = string.ascii_lowercase + string.digits
_RECEIVING: Final = jobs.JobState.RECEIVING.value
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
    over, its segments deleted. Raises `errors.InProgress` while that upload lives, and
    `errors.NotFound` when the job that it verifies is deleted."""

    def work(conn: Connection) -> Upload | Replay:
        now = db.now()
        if job.verifies is not None:
            _require_undeleted(conn, job.verifies)
        fresh = {
            **_head(job, now),
            "public_id": new_public_id(),
            "idempotency_key": idempotency_key,
            "state": _RECEIVING,
            "generation": 0,
            "version": 0,
            "upload_epoch": 0,
            "ended": 0,
            "swept": 0,
        }
        made = insert_ignore(conn, table).values(fresh).returning(table.c.id)
        if (job_id := conn.scalar(made)) is not None:
            return Upload(job_id, fresh["public_id"], 0, job.output)
        return _known(conn, job, idempotency_key, now, silent_after)

    begun = db.write(work)
    if isinstance(begun, Upload) and begun.epoch > 0:
        erasing.erase(db, begun.job_id, erasing.SUBMISSION)
    return begun


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
    """Beats the heartbeat, if the upload still owns the job. Raises `errors.Conflict`."""
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
        raise errors.Conflict(_LOST)


def beat(db: Database, upload: Upload) -> None:
    """Raises `errors.Conflict` when the upload was taken over."""
    db.write(lambda conn: _held(conn, upload, upload_beat=db.now()))


def write(
    db: Database, upload: Upload, segments: Sequence[Segment], maps: Sequence[MapBlock]
) -> None:
    """Adds segments and map blocks and beats the heartbeat. All segments of a lane but its
    last are full. Raises `errors.Conflict` when the upload was taken over."""
    received = sum(segment.count for segment in segments)
    _require_aligned(segments)

    def work(conn: Connection) -> None:
        _held(conn, upload, upload_beat=db.now(), total=table.c.total + received)
        _put(conn, upload, segments, maps)

    db.write(work)


def _require_aligned(segments: Sequence[Segment]) -> None:
    for segment in segments:
        if segment.first != segment.number * jobs.SEGMENT or not 0 < segment.count <= jobs.SEGMENT:
            raise errors.Internal("a segment must start at its number times 1,024")


def _put(
    conn: Connection, upload: Upload, segments: Sequence[Segment], maps: Sequence[MapBlock]
) -> None:
    if segments:
        _put_segments(conn, upload.job_id, segments)
    if maps:
        blocks = [{"job_id": upload.job_id, **asdict(block)} for block in maps]
        conn.execute(insert(row_map), blocks)


def _segment_row(job_id: int, segment: Segment) -> tuple[Any, ...]:
    return (
        job_id,
        segment.lane,
        segment.number,
        segment.first,
        segment.count,
        segments.first_index(segment.payload),
        segments.CODEC,
        segment.payload,
    )


def _put_segments(conn: Connection, job_id: int, given: Sequence[Segment]) -> None:
    names = [column.name for column in segment_table.columns]
    values = [_segment_row(job_id, segment) for segment in given]
    if conn.dialect.name == "sqlite":
        conn.execute(insert(segment_table), [dict(zip(names, row, strict=True)) for row in values])
        return
    raw: Any = conn.connection.driver_connection
    columns = ", ".join(f'"{name}"' for name in names)
    with (
        raw.cursor() as cursor,
        cursor.copy(f"COPY segments ({columns}) FROM STDIN (FORMAT BINARY)") as copy,
    ):
        copy.set_types(["int8", "int2", "int4", "int4", "int4", "int4", "int2", "bytea"])
        for row in values:
            copy.write_row(row)


def _check_lanes(
    conn: Connection,
    upload: Upload,
    specs: Sequence[LaneSpec],
    rest: Sequence[Segment],
    total: int,
) -> None:
    """The segments that are written, and `rest`, are those of the lanes."""
    s = segment_table.c
    found = conn.execute(
        select(s.lane, func.sum(s.count), func.count(), func.max(s.number))
        .where(s.job_id == upload.job_id)
        .group_by(s.lane)
    ).all()
    held, parts, last = Counter[int](), Counter[int](), Counter[int]()
    given = ((part.lane, part.count, 1, part.number) for part in rest)
    for lane, count, number_of_parts, number in [*found, *given]:
        held[lane] += int(count)
        parts[lane] += number_of_parts
        last[lane] = max(last[lane], number)
    whole = all(parts[lane] == last[lane] + 1 for lane in held)
    if not whole or held != {one.number: one.count for one in specs} or held.total() != total:
        raise errors.Internal("the segments received are not those announced")


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
    images of the tenant, `errors.Conflict` when the upload was taken over. After an error
    the upload is still open: abandon it."""
    if len(lanes) > jobs.MAX_LANES:
        raise errors.BadRequest(
            f"the rows fall into {len(lanes)} groups of parameters; at most {jobs.MAX_LANES} "
            "per job: split the submission"
        )
    _require_aligned(segments)
    db.read(lambda conn: _check_lanes(conn, upload, lanes, segments, total))

    def work(conn: Connection) -> Job:
        now = db.now()
        _held(conn, upload, upload_beat=now, total=total, request_hash=request_hash)
        _put(conn, upload, segments, maps)
        job = rows.load(conn, table.c.id == upload.job_id)[0]
        if max_queued is not None:
            _check_limit(conn, job, max_queued)
        _put_lanes(conn, job.id, lanes)
        return rows.change(conn, job, jobs.JobState.QUEUED, now)

    return db.write(work)


def _check_limit(conn: Connection, job: Job, max_queued: int) -> None:
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


def _put_lanes(conn: Connection, job_id: int, specs: Sequence[LaneSpec]) -> None:
    if specs:
        conn.execute(insert(lanes), [{"job_id": job_id, **asdict(spec)} for spec in specs])
    shards = [
        {"job_id": job_id, "shard": shard, "generation": 0} for shard in range(jobs.COUNTER_SHARDS)
    ]
    conn.execute(insert(job_counters), shards)


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
