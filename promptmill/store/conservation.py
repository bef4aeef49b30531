"""What the audit reads: small pages of queued jobs with their lanes, and how far each has
come. Nothing here writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select, text

from promptmill.jobs import JobState
from promptmill.store.database import Database
from promptmill.tables import LIVE, job_counters, jobs, lanes


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


def open_page(db: Database, model: str, *, after: int, limit: int) -> list[OpenJob]:
    """The queued jobs of a model with an id above `after`, by id."""
    page = (
        select(jobs.c.id, jobs.c.public_id, jobs.c.version, jobs.c.total)
        .where(text(LIVE), jobs.c.state == JobState.QUEUED.value)
        .where(jobs.c.model == model, jobs.c.id > after)
        .order_by(jobs.c.id)
        .limit(limit)
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


def cancelling(db: Database) -> list[str]:
    """The public ids of the jobs that are being cancelled."""
    query = (
        select(jobs.c.public_id)
        .where(text(LIVE), jobs.c.state == JobState.CANCELLING.value)
        .order_by(jobs.c.id)
    )
    return db.read(lambda connection: list(connection.scalars(query)))
