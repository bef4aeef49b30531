"""What the transactions of a submission are made of: its segments, map blocks and lanes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, func, insert, select

from promptmill import errors, jobs, segments
from promptmill.records import LaneSpec, MapBlock, Segment, Upload
from promptmill.tables import job_counters, lanes, row_map
from promptmill.tables import segments as segment_table


def require_aligned(segments: Sequence[Segment]) -> None:
    for segment in segments:
        if segment.first != segment.number * jobs.SEGMENT or not 0 < segment.count <= jobs.SEGMENT:
            raise errors.Internal("a segment must start at its number times 1,024")


def put(
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


def written(conn: Connection, upload: Upload) -> list[tuple[int, int, int, int]]:
    """(lane, images, segments, greatest number) of what `write` has added."""
    s = segment_table.c
    found = conn.execute(
        select(s.lane, func.sum(s.count), func.count(), func.max(s.number))
        .where(s.job_id == upload.job_id)
        .group_by(s.lane)
    )
    return [(lane, int(count), parts, last) for lane, count, parts, last in found]


def check_lanes(
    specs: Sequence[LaneSpec],
    written: Sequence[tuple[int, int, int, int]],
    rest: Sequence[Segment],
    total: int,
) -> None:
    """The segments that are written, and `rest`, are those of the lanes."""
    if len(specs) > jobs.MAX_LANES:
        raise errors.BadRequest(
            f"the rows fall into {len(specs)} groups of parameters; at most {jobs.MAX_LANES} "
            "per job: split the submission"
        )
    held, parts, last = Counter[int](), Counter[int](), Counter[int]()
    for lane, count, some, number in [*written, *((p.lane, p.count, 1, p.number) for p in rest)]:
        held[lane] += count
        parts[lane] += some
        last[lane] = max(last[lane], number)
    whole = all(parts[lane] == last[lane] + 1 for lane in held)
    if not whole or held != {one.number: one.count for one in specs} or held.total() != total:
        raise errors.Internal("the segments received are not those announced")


def put_lanes(conn: Connection, job_id: int, specs: Sequence[LaneSpec]) -> None:
    if specs:
        conn.execute(insert(lanes), [{"job_id": job_id, **asdict(spec)} for spec in specs])
    shards = [
        {"job_id": job_id, "shard": shard, "generation": 0} for shard in range(jobs.COUNTER_SHARDS)
    ]
    conn.execute(insert(job_counters), shards)
