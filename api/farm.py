"""What every route may touch: the database, the objects, one queue per model. Tells the
queue of what the database decided; a queue that is out of reach fails no request, because
control repairs it from the database."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from celery import Celery

from api.looks import Looks
from api.outlook import Outlook
from api.pacing import Pacing
from api.rates import Pace, Rates
from api.thumbnails import Thumbnails
from promptmill import blobs, errors, failpoints, jobs, leases, records, wakeups
from promptmill.redis_queue import RedisQueue
from promptmill.settings import Settings
from promptmill.store import images as stored_images
from promptmill.store import jobs as stored_jobs
from promptmill.store import models as stored_models
from promptmill.store import secrets, tenants
from promptmill.store.database import Database
from promptmill.traces import UNTRACED, Traces

log = logging.getLogger("promptmill.api")

WORKERS_FOR = 1.0  # seconds for which a look at the live workers is believed
REDIS_AGAIN = 3.0  # seconds until Redis is asked again after it did not answer


class Farm:
    """Thread-safe. `close` ends its connections."""

    def __init__(self, settings: Settings, traces: Traces = UNTRACED) -> None:
        self.settings = settings
        self.traces = traces
        self.db = Database(settings.database)
        self.blobs = blobs.open_store(settings)
        self.segments = stored_images.SegmentCache()
        self.rates = Rates()
        self.looks = Looks()
        self.thumbnails = Thumbnails()
        self.pacing = Pacing(settings.requests_per_second)
        self.celery: Celery = wakeups.celery_app(settings)
        self._default: records.Tenant | None = None
        self._link_key: bytes | None = None
        self._queues: dict[str, RedisQueue] = {}
        self._workers: dict[str, tuple[float, list[dict[str, Any]] | None]] = {}
        self._silent: dict[str, tuple[float, list[tuple[leases.Lease, float]]]] = {}
        self._lock = threading.Lock()

    def queue(self, model: str) -> RedisQueue:
        with self._lock:
            if model not in self._queues:
                self._queues[model] = RedisQueue(self.settings.redis, model)
            return self._queues[model]

    def workers(self, model: str) -> list[dict[str, Any]] | None:
        """The live workers of a model, as seen a second ago at most; None while Redis is
        out of reach."""
        now = time.monotonic()
        until, found = self._workers.get(model, (now, None))
        if now < until:
            return found
        self._workers[model] = (now + REDIS_AGAIN, found)  # others need not wait for it, too
        try:
            found = self.queue(model).workers()
            self._workers[model] = (now + WORKERS_FOR, found)
        except errors.Unavailable:
            found = None
        return found

    def cold(self, job: records.Job) -> bool | None:
        """Whether no live worker leases of the job's model; None when that is not known. A
        job that has just begun is not cold: its worker may be younger than the last look."""
        found = self.workers(job.model)
        if found is None:
            return None
        young = job.started_at is not None and time.time() - job.started_at < 2 * WORKERS_FOR
        return not young and all(worker.get("state") == "draining" for worker in found)

    def rendering(self, job: records.Job) -> Mapping[str, Any] | None:
        """What the worker that is furthest with images of the job does: {step, steps, measuring},
        as it told within the last two seconds; None where none of them goes by steps."""
        if job.state is not jobs.JobState.QUEUED:
            return None
        told = [worker.get("rendering") or {} for worker in self.workers(job.model) or ()]
        mine = [one for one in told if job.public_id in one.get("jobs", ())]
        return max(mine, key=lambda one: one["step"] / one["steps"], default=None)

    def fingerprints(self, job: records.Job) -> int:
        """How many different ones may draw what is left of the job; none is told where it is
        pinned to one."""
        if job.state is not jobs.JobState.QUEUED or job.fingerprint:
            return 0
        return len({worker.get("fingerprint") for worker in self.workers(job.model) or ()})

    def waiting_for_lost(self, job: records.Job) -> tuple[int, float] | None:
        """(images, seconds left at most) of the job's leases whose workers have missed
        their renewals for half a lease; None when there is none, or Redis is out of reach."""
        if job.state is not jobs.JobState.QUEUED:
            return None
        mine = [
            (span.count, left)
            for lease, left in self._silent_of(job.model)
            for span in lease.spans
            if (span.job_id, span.generation) == (job.id, job.generation)
        ]
        return (sum(n for n, _ in mine), max(left for _, left in mine)) if mine else None

    def _silent_of(self, model: str) -> list[tuple[leases.Lease, float]]:
        """As seen a second ago at most."""
        now = time.monotonic()
        until, found = self._silent.get(model, (now, []))
        if now < until:
            return found
        self._silent[model] = (now + REDIS_AGAIN, [])
        try:
            found = self.queue(model).silent(self.settings.lease_seconds / 2)
            self._silent[model] = (now + WORKERS_FOR, found)
        except errors.Unavailable:
            found = []
        return found

    @property
    def knows_default_tenant(self) -> bool:
        """Whether `default_tenant` answers without a look at the database."""
        return self._default is not None

    def default_tenant(self) -> records.Tenant:
        """Whose jobs those of a farm without keys are. Looked up once: it is a write."""
        if self._default is None:
            self._default = tenants.ensure_default(self.db)
        return self._default

    def queue_limit(self, tenant_id: int) -> int:
        """How many unfinished images the tenant may have."""
        own = tenants.get(self.db, tenant_id).max_queued
        return self.settings.max_queued_images_per_tenant if own is None else own

    def link_key(self) -> bytes:
        """What signs links to the content of images: the same in every process."""
        if self._link_key is None:
            self._link_key = secrets.get(self.db, secrets.LINKS, lambda: os.urandom(32))
        return self._link_key

    def pace(self, job: records.Job) -> Pace:
        return self.rates.observe(job, wall=time.time())

    def outlook(self, job: records.Job, pace: Pace | None = None) -> Outlook:
        """All that is known of a job beside its row. pace: as it was just seen."""
        return Outlook(
            self.pace(job) if pace is None else pace,
            self.cold(job),
            self.waiting_for_lost(job),
            self.fingerprints(job),
            self.rendering(job),
        )

    def accept(self, job: records.Job, tenant: records.Tenant) -> None:
        """Of a job that is new, however it came in: what every one of them goes through."""
        self.traces.accepted(job, tenant=tenant.name if self.settings.auth == "keys" else None)
        self.enqueue(job, fresh=True)

    def enqueue(self, job: records.Job, *, fresh: bool) -> None:
        """Puts what is left of a job into the queue and wakes workers, if it is queued.
        fresh: nothing of it has ever run."""
        self.looks.forget(job.tenant_id, job.public_id)
        if job.state is not jobs.JobState.QUEUED:
            return
        queue = self.queue(job.model)
        try:
            for lane in stored_jobs.queue_lanes(self.db, job):
                whole = [leases.Span(0, lane.count)]
                queue.replace(lane, whole if fresh else stored_images.gaps(self.db, lane.id))
            failpoints.reach("submit.enqueued")
            if job.priority is not jobs.Priority.INTERACTIVE or not queue.call():
                wakeups.wake(self.celery, queue, job.model)
            queue.publish(job.public_id)
        except errors.Unavailable as exc:
            log.warning("job %s waits for control to queue it: %s", job.public_id, exc)

    def withdraw(self, job: records.Job) -> None:
        """Takes a paused, cancelled or deleted job's lanes off the queue."""
        self.looks.forget(job.tenant_id, job.public_id)
        queue = self.queue(job.model)
        try:
            lanes = stored_jobs.lanes(self.db, job.id)
            queue.drop([lane.id for lane in lanes], version=job.version)
            queue.publish(job.public_id)
        except errors.Unavailable as exc:
            log.warning("job %s waits for control to withdraw it: %s", job.public_id, exc)

    def all_workers(self) -> list[tuple[str, Mapping[str, Any]]]:
        """(model, status) of every live worker. Raises `errors.RedisDown`."""
        names = [model.name for model in stored_models.all(self.db)]
        return [(name, status) for name in names for status in self.queue(name).workers()]

    def require(self) -> None:
        """Raises the `errors.Unavailable` of what cannot be reached, naming its setting."""
        self.db.require_schema()
        self.queue(self.settings.model_name).ping()
        self.blobs.probe()

    def close(self) -> None:
        for queue in self._queues.values():
            queue.close()
        self.celery.close()
        self.blobs.close()
        self.db.close()
