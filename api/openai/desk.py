"""The desk where batches are worked on, in threads of the API: their lines are validated and
become a job; when that is over, its results are counted and the batch ends. A batch is
claimed in the database for a while, so that any number of API processes share the work and
what one of them leaves behind by dying is taken up by the next."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from api import intake, sources, submissions
from api.farm import Farm
from api.links import lasting
from api.openai import batches, lines, results
from api.submissions import chunks, head
from api.submissions.sources import REMEMBERED
from promptmill import errors, failpoints, keys, pictures, records
from promptmill.store import batch_claims, batch_ends, tenants
from promptmill.store import batches as stored
from promptmill.store import files as stored_files
from promptmill.store import models as stored_models
from promptmill.store import submissions as stored_submissions
from promptmill.store.batch_ends import Outcome
from promptmill.store.batches import Batch

log = logging.getLogger("promptmill.api")

CLAIM: Final = 30.0  # seconds
RENEW: Final = 8.0
PERIOD: Final = 1.0  # between two looks for something to do
AGAIN: Final = 10.0  # after a server was out of reach
THREADS: Final = 2  # so that a large file delays no more than half of the others


class Stopped(Exception):
    """The process ends."""


class Cancelled(Exception):
    """The batch was cancelled while its lines were read."""


class Desk:
    """`start` and `close` are called once each; `poke` says that there may be work."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self._over = threading.Event()
        self._poked = threading.Condition()
        self._threads = [
            threading.Thread(target=self._run, name=f"batches-{number}", daemon=True)
            for number in range(THREADS)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Bounded: what is being read is given back at its next line."""
        self._over.set()
        self.poke()
        for thread in self._threads:
            thread.join(2.0)

    def poke(self) -> None:
        with self._poked:
            self._poked.notify_all()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                batch = batch_claims.claim(self._farm.db, seconds=CLAIM)
            except errors.Unavailable as error:
                log.warning("batches wait: %s", error)
                batch = None
            if batch is not None:
                self._work(batch)
            elif not self._over.is_set():
                with self._poked:
                    self._poked.wait(PERIOD)

    def _work(self, batch: Batch) -> None:
        """One step of one batch; what fails is tried again later."""
        try:
            again = self._step(batch)
            if again is not None:
                batch_claims.release(self._farm.db, batch.id, after=again)
        except errors.Unavailable as error:
            log.warning("batch %s waits: %s", batch.public_id, error)
        except Exception:  # a defect must not end the thread; the claim lapses
            log.exception("batch %s failed", batch.public_id)

    def _step(self, batch: Batch) -> float | None:
        """Seconds until it is to be looked at again; None: it has gone on by itself."""
        try:
            if batch.job_id is not None:
                return self._finish(batch)
            self._open(batch)
            return None
        except Stopped:
            return 0.0
        except errors.InProgress as error:  # left behind by a process that died
            return error.retry_after or AGAIN
        except errors.TakenOver:  # by another, while this one slept
            return AGAIN

    def _watch(self, batch: Batch) -> Callable[[], None]:
        """Renews the claim. Raises `Stopped`, `Cancelled`."""
        renewed = time.monotonic()

        def watch() -> None:
            nonlocal renewed
            if self._over.is_set():
                raise Stopped
            if time.monotonic() - renewed > min(RENEW, PERIOD if batch.job_id is None else RENEW):
                renewed = time.monotonic()
                now = batch_claims.renew(self._farm.db, batch.id, seconds=CLAIM)
                if batch.job_id is None and now.cancelling_at is not None:
                    raise Cancelled

        return watch

    # from validating to a job

    def _open(self, batch: Batch) -> None:
        db = self._farm.db
        if batch.cancelling_at is not None:
            self._cancel_unborn(batch)
        elif batch.expires_at <= db.now():
            batch_ends.end(db, batch.id, Outcome("expired"))
        else:
            self._validate(batch)

    def _cancel_unborn(self, batch: Batch) -> None:
        """It may have a job all the same, made by a process that died just then."""
        db = self._farm.db
        job = stored_submissions.known(db, batch.tenant_id, _key(batch))
        if job is None:
            batch_ends.end(db, batch.id, Outcome("cancelled"))
        else:
            born = batch_claims.became(db, batch.id, job=job, requests=job.counts.total)
            batches.withdraw(self._farm, born)

    def _validate(self, batch: Batch) -> None:
        farm = self._farm
        try:
            requests = self._requests(batch)
            try:
                job = self._submit(batch, requests)
            except lines.Refused as refused:
                batch_ends.refuse(
                    farm.db, batch.id, problems=refused.problems, requests=requests.count
                )
                return
        except Cancelled:
            self._cancel_unborn(batch)
            return
        except (errors.Unavailable, errors.InProgress, errors.TakenOver):
            raise
        except errors.Error as error:
            code = error.code if error.code == "limit_exceeded" else "invalid_request"
            told = {"code": code, "message": error.message, "param": error.param}
            batch_ends.refuse(
                farm.db, batch.id, problems=[{**told, "line": error.line}], requests=0
            )
            return
        failpoints.reach("batch.accepted")
        born = batch_claims.became(farm.db, batch.id, job=job, requests=requests.count)
        if born.cancelling_at is not None:  # asked for in the meantime
            batches.withdraw(farm, born)

    def _requests(self, batch: Batch) -> lines.Requests:
        farm = self._farm
        file = stored_files.get(farm.db, batch.tenant_id, batch.input_file)
        return lines.Requests(
            farm.blobs.stream(keys.file(file.public_id)),
            endpoint=batch.endpoint,
            find_model=lambda name: stored_models.get(farm.db, name),
            default_model=farm.settings.model_name,
            max_line=farm.settings.max_line_bytes,
            watch=self._watch(batch),
            transparent=self._transparent(batch),
        )

    def _transparent(self, batch: Batch) -> Callable[[str], bool]:
        """Whether a picture of the tenant is clear in places; each is read once for that."""
        found = sources.Found(self._farm, tenants.get(self._farm.db, batch.tenant_id))

        @functools.lru_cache(maxsize=REMEMBERED)
        def look(reference: str) -> bool:
            return pictures.check(found.read(reference)).transparent

        return look

    def _submit(self, batch: Batch, requests: lines.Requests) -> records.Job:
        """The way of every submission, under a key of the batch's own: a process that dies on
        it leaves an upload that the next one takes over, or a job that it finds again."""
        farm = self._farm
        model, format = requests.open()
        limits = submissions.Limits.from_settings(farm.settings)
        parsed = head.parse(
            {
                "model": model.name,
                "name": batch.public_id,
                "priority": batch.priority,
                "metadata": {"batch_id": batch.public_id},
                "expires_at": batch.expires_at,
                "format": format,
                "packing": batch.packing,
            },
            textual=False,
            tenant_id=batch.tenant_id,
            find_model=lambda _: model,
            default_model=model.name,
            max_n=limits.max_n,
            idempotency_key=_key(batch),
        )
        received = intake.accept(
            farm,
            tenants.get(farm.db, batch.tenant_id),
            submissions.Submission(parsed, limits, requests.rows(), progress=chunks.Progress()),
        )
        if isinstance(received, dict):
            raise errors.Internal("a batch has no dry run")
        return received.job

    # from a job that is over to the end

    def _finish(self, batch: Batch) -> float | None:
        farm = self._farm
        job = stored.jobs_of(farm.db, [batch]).get(batch.job_id or 0)
        if job is None:  # deleted
            batch_ends.end(farm.db, batch.id, Outcome("cancelled"))
            return None
        url = lasting(farm, batch.base_url, job, seconds=batch.output_expires_in)
        found = results.Results(farm, batch, job, url)
        outcome = results.outcome(found, job, self._watch(batch))
        return None if batch_ends.end(farm.db, batch.id, outcome, job=job) else 0.0


def _key(batch: Batch) -> str:
    return f"promptmill:{batch.public_id}"
