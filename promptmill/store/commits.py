"""The commit of a micro-batch: one transaction that inserts a row per finished image, once,
and adds what was really inserted to the counters, which are also the fence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from sqlalchemy import Connection, update

from promptmill.jobs import COUNTER_SHARDS, ImageState
from promptmill.records import Result
from promptmill.store import caching
from promptmill.store.database import Database
from promptmill.tables import DONE, FAILED, jobs

_CODES: Final = {ImageState.DONE: DONE, ImageState.FAILED: FAILED}
_SMALL: Final = 100  # bytes that a remembered job takes in the cache
_TEXT: Final = 2000  # characters of an error that are kept

# column, Postgres type; the first eighteen are read from the result under their own name
_COLUMNS: Final = (
    ("lane", "bigint"),
    ("position", "integer"),
    ("job_id", "bigint"),
    ("index", "integer"),
    ("generation", "integer"),
    ("attempt", "smallint"),
    ("seed", "bigint"),
    ("bytes", "integer"),
    ("render_ms", "double precision"),
    ("fingerprint", "text"),
    ("sha256", "bytea"),
    ("offset", "bigint"),
    ("length", "bigint"),
    ("score", "double precision"),
    ("worker", "text"),
    ("key", "text"),
    ("rerolls", "text"),
    ("expanded_prompt", "text"),
    ("error_code", "text"),
    ("error_text", "text"),
    ("state", "smallint"),
)
_NAMES: Final = ", ".join(f'"{name}"' for name, _ in (*_COLUMNS, ("finished_at", "")))
_plain: Final = attrgetter(*(name for name, _ in _COLUMNS[:18]))

# Only names of columns and types are put into the two statements as text.
_POSTGRES: Final = f"""
WITH given AS (
    SELECT * FROM unnest({", ".join(f"%s::{kind}[]" for _, kind in _COLUMNS)})
        AS given({", ".join(f'"{name}"' for name, _ in _COLUMNS)})
), fence AS (
    SELECT c.job_id, c.generation FROM job_counters c
    WHERE c.shard = %s AND NOT c.closed
      AND (c.job_id, c.generation) IN (SELECT g.job_id, g.generation FROM given g)
    ORDER BY c.job_id FOR UPDATE
), entered AS (
    INSERT INTO images ({_NAMES})
    SELECT given.*, %s FROM given JOIN fence USING (job_id, generation)
    ORDER BY given.lane, given.position
    ON CONFLICT DO NOTHING RETURNING lane, position, job_id, state, bytes
), sums AS (
    SELECT job_id, count(*) FILTER (WHERE state = {DONE}) AS done,
           count(*) FILTER (WHERE state = {FAILED}) AS failed, sum(bytes) AS bytes
    FROM entered GROUP BY job_id
), counted AS (
    UPDATE job_counters c SET done = c.done + sums.done, failed = c.failed + sums.failed,
           bytes = c.bytes + sums.bytes
    FROM sums WHERE c.job_id = sums.job_id AND c.shard = %s
)
SELECT 0 AS kind, lane AS a, position AS b FROM entered
UNION ALL SELECT 1, job_id, generation FROM fence
"""  # noqa: S608


# Jobs come before counters in every transaction that locks both, and by id.
_START: Final = """
UPDATE jobs SET started_at = %s WHERE id IN (
    SELECT id FROM jobs WHERE id = ANY(%s) AND started_at IS NULL
    AND state IN ('queued', 'paused') ORDER BY id FOR NO KEY UPDATE)
"""


Pairs = set[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Committed:
    """inserted: (lane id, position) of the rows that are new. dropped_jobs: jobs that were
    closed, or in another generation; none of their results were kept. A result in neither
    was terminal before."""

    inserted: frozenset[tuple[int, int]]
    dropped_jobs: frozenset[int]


def commit(db: Database, results: Sequence[Result], *, shard: int) -> Committed:
    """Commits a micro-batch, of one job or many, in one transaction. `shard`: any number
    that is the committer's own; it is taken modulo the number of shards."""
    if not results:
        return Committed(frozenset(), frozenset())
    ordered = sorted(results, key=attrgetter("lane", "position"))
    rows = [_row(result) for result in ordered]
    begun = caching.of(db)
    fresh = sorted({r.job_id for r in ordered if begun.get(("begun", r.job_id)) is None})

    def work(conn: Connection) -> tuple[Pairs, Pairs]:
        commit_rows = _on_sqlite if db.dialect == "sqlite" else _on_postgres
        now = db.now()
        _start(conn, fresh, now)
        return commit_rows(conn, rows, shard % COUNTER_SHARDS, now)

    inserted, opened = db.write(work)
    for job, _ in opened:
        begun.put(("begun", job), True, _SMALL)
    dropped = {pair for r in ordered if (pair := (r.job_id, r.generation)) not in opened}
    if dropped:
        db.write(lambda conn: _sweep_again(conn, dropped))
    return Committed(frozenset(inserted), frozenset(job for job, _ in dropped))


def _sweep_again(conn: Connection, pairs: Pairs) -> None:
    """Generations that were over before their last objects came: a sweep may have passed."""
    for job, generation in sorted(pairs):
        late = update(jobs).where(jobs.c.id == job, jobs.c.swept > generation)
        conn.execute(late.values(swept=generation))


def _start(conn: Connection, fresh: list[int], now: float) -> None:
    """Stamps the start of jobs whose first result this may be."""
    if conn.dialect.name == "postgresql" and fresh:
        conn.exec_driver_sql(_START, (now, fresh))
        return
    for job in fresh:
        stamp = "UPDATE jobs SET started_at = ? WHERE id = ? AND started_at IS NULL"
        conn.exec_driver_sql(f"{stamp} AND state IN ('queued', 'paused')", (now, job))


def _row(result: Result) -> tuple[Any, ...]:
    return (
        *_plain(result),
        result.error_code,
        _clean(result.error_text),
        _CODES[result.state],
    )


def _clean(text: str | None) -> str | None:
    """Text that any database takes: no NUL, no lone surrogate, not endless."""
    if text is None:
        return None
    whole = text[:_TEXT].encode("utf-8", "replace").decode()
    return whole.replace("\0", "\ufffd")


def _on_postgres(
    conn: Connection, rows: Sequence[tuple[Any, ...]], shard: int, now: float
) -> tuple[Pairs, Pairs]:
    columns = [list(column) for column in zip(*rows, strict=True)]
    found = conn.exec_driver_sql(_POSTGRES, (*columns, shard, now, shard)).all()
    entered = {(a, b) for kind, a, b in found if kind == 0}
    return entered, {(a, b) for kind, a, b in found if kind == 1}


@lru_cache(maxsize=128)
def _sqlite_insert(count: int) -> str:
    holes = "(" + ", ".join("?" * (len(_COLUMNS) + 1)) + ")"
    return (
        f"INSERT INTO images ({_NAMES}) VALUES {', '.join([holes] * count)} "  # noqa: S608
        "ON CONFLICT DO NOTHING RETURNING lane, position, job_id, state, bytes"
    )


_AT_ONCE: Final = 512  # rows in a statement; SQLite takes 32,766 values


def _on_sqlite(
    conn: Connection, rows: Sequence[tuple[Any, ...]], shard: int, now: float
) -> tuple[Pairs, Pairs]:
    opened = _open_counters(conn, {(row[2], row[4]) for row in rows}, shard)
    kept = [(*row, now) for row in rows if (row[2], row[4]) in opened]
    entered: list[Any] = []
    for start in range(0, len(kept), _AT_ONCE):
        part = kept[start : start + _AT_ONCE]
        values = tuple(value for row in part for value in row)
        entered += conn.exec_driver_sql(_sqlite_insert(len(part)), values).all()
    _count(conn, entered, shard)
    return {(row[0], row[1]) for row in entered}, opened


def _open_counters(conn: Connection, pairs: Iterable[tuple[int, int]], shard: int) -> Pairs:
    query = (
        "SELECT 1 FROM job_counters WHERE job_id = ? AND shard = ? AND generation = ? "
        "AND NOT closed"
    )
    return {
        (job, generation)
        for job, generation in pairs
        if conn.exec_driver_sql(query, (job, shard, generation)).first()
    }


def _count(conn: Connection, entered: Sequence[Any], shard: int) -> None:
    sums: dict[int, list[int]] = {}
    for _, _, job, state, size in entered:
        of = sums.setdefault(job, [0, 0, 0])
        of[0 if state == DONE else 1] += 1
        of[2] += size
    for job, (done, failed, size) in sums.items():
        conn.exec_driver_sql(
            "UPDATE job_counters SET done = done + ?, failed = failed + ?, bytes = bytes + ? "
            "WHERE job_id = ? AND shard = ?",
            (done, failed, size, job, shard),
        )
