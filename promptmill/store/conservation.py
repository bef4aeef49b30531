"""What the audit and the rebuild read: queued jobs and their lanes, page by page, and how
far each has come. Nothing here writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, exists, func, select, text

from promptmill.jobs import JobState, Priority
from promptmill.leases import QueueLane
from promptmill.store.database import Database
from promptmill.tables import LIVE, incidents, job_counters, jobs, lanes, tenants


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A queued job as the audit needs it; `lanes` are lane ids."""

    id: int
    public_id: str
    version: int
    total: int
    lanes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """How many images of a queued job are terminal, and the job's version then."""

    version: int
    terminal: int


@dataclass(frozen=True, slots=True)
class OpenLane:
    """A lane of a queued job. `left`: images of its job that are not terminal. `touched`:
    some image of the job is, or has an incident, so that the lane's gaps must be read."""

    lane: QueueLane
    left: int
    touched: bool


def _queued(model: str, after: int, limit: int) -> Select[Any]:
    return (
        select(jobs)
        .where(text(LIVE), jobs.c.state == JobState.QUEUED.value)
        .where(jobs.c.model == model, jobs.c.id > after)
        .order_by(jobs.c.id)
        .limit(limit)
    )


def open_page(db: Database, model: str, *, after: int, limit: int) -> list[OpenJob]:
    """The queued jobs of a model with an id above `after`, by id."""
    page = _queued(model, after, limit).with_only_columns(
        jobs.c.id, jobs.c.public_id, jobs.c.version, jobs.c.total
    )

    def work(connection: Connection) -> list[OpenJob]:
        rows = connection.execute(page).all()
        of_job: dict[int, list[int]] = defaultdict(list)
        wanted = select(lanes.c.job_id, lanes.c.id).where(lanes.c.job_id.in_([r.id for r in rows]))
        for job_id, lane in connection.execute(wanted.order_by(lanes.c.id)):
            of_job[job_id].append(lane)
        return [OpenJob(r.id, r.public_id, r.version, r.total, tuple(of_job[r.id])) for r in rows]

    return db.read(work)


def progress(db: Database, job_ids: Sequence[int]) -> dict[int, Progress]:
    """Those of `job_ids` that are queued now, with their terminal images by the counters."""
    terminal = func.coalesce(func.sum(job_counters.c.done + job_counters.c.failed), 0)
    query = (
        select(jobs.c.id, jobs.c.version, terminal)
        .join(job_counters, job_counters.c.job_id == jobs.c.id)
        .where(jobs.c.id.in_(job_ids), jobs.c.state == JobState.QUEUED.value)
        .group_by(jobs.c.id, jobs.c.version)
    )

    def work(connection: Connection) -> dict[int, Progress]:
        return {
            job: Progress(version, int(count)) for job, version, count in connection.execute(query)
        }

    return db.read(work)


def lanes_page(db: Database, model: str, *, after: int, limit: int) -> list[OpenLane]:
    """The lanes of the next `limit` queued jobs with an id above `after`, by job."""
    page = _queued(model, after, limit).subquery()
    terminal = (
        select(func.coalesce(func.sum(job_counters.c.done + job_counters.c.failed), 0))
        .where(job_counters.c.job_id == page.c.id)
        .scalar_subquery()
    )
    query = (
        select(
            lanes,
            page.c.generation,
            page.c.version,
            page.c.tenant_id,
            page.c.priority,
            page.c.total,
            terminal.label("terminal"),
            exists().where(incidents.c.job_id == page.c.id).label("tried"),
            func.coalesce(tenants.c.weight, 1.0).label("weight"),
        )
        .join(page, page.c.id == lanes.c.job_id)
        .outerjoin(tenants, tenants.c.id == page.c.tenant_id)
        .order_by(lanes.c.job_id, lanes.c.id)
    )
    return [_open_lane(row) for row in db.read(lambda connection: connection.execute(query).all())]


def _open_lane(row: Row[Any]) -> OpenLane:
    lane = QueueLane(
        id=row.id,
        job_id=row.job_id,
        count=row._mapping["count"],
        generation=row.generation,
        version=row.version,
        tenant_id=row.tenant_id,
        weight=row.weight,
        bucket=row.bucket,
        cost=row.cost,
        priority=Priority(row.priority),
    )
    terminal = int(row.terminal)
    return OpenLane(lane, row.total - terminal, bool(terminal or row.tried))


def cancelling(db: Database) -> list[str]:
    """The public ids of the jobs that are being cancelled."""
    query = (
        select(jobs.c.public_id)
        .where(text(LIVE), jobs.c.state == JobState.CANCELLING.value)
        .order_by(jobs.c.id)
    )
    return db.read(lambda connection: list(connection.scalars(query)))
