"""The story of a submission: begin, write segments, finish, or abandon."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, cast

from api.submissions.digest import Digest
from api.submissions.lanes import Lanes
from api.submissions.rows import Rows
from api.submissions.sources import Taken, no_prompt
from api.submissions.submission import Submission
from api.submissions.warnings import Warnings
from promptmill import errors, failpoints
from promptmill.records import Job, LaneSpec, MapBlock, Replay, Segment, Upload
from promptmill.store import jobs, submissions
from promptmill.store.database import Database

BATCH = 8  # segments and map blocks in one write: a short transaction
BEAT = 8.0  # seconds between two signs of life
STALLED = 60.0  # seconds without a byte after which the upload counts as dead

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Received:
    """job: queued, or, when `replay`, the one that this idempotency key made before."""

    job: Job
    replay: bool
    warnings: Warnings


class Copies(Protocol):
    """Where the sources of one job are copied to."""

    def keep(self, sha256: str, data: bytes, content_type: str) -> None: ...

    def discard(self) -> None: ...


def receive(
    db: Database,
    submission: Submission,
    *,
    costs: Mapping[str, float],
    max_queued: int | None,
    read: Callable[[str], bytes],
    prompt_of: Callable[[str], str | None] = no_prompt,
    copies: Callable[[Upload], Copies],
) -> Received:
    """costs: measured generator-seconds per image by bucket. max_queued: the tenant's
    limit. read, prompt_of: the bytes and the prompt behind a reference to a source. Raises
    `errors.BadRow` and other 4xx errors (nothing is left behind), `errors.InProgress`,
    `errors.IdempotencyMismatch`, `errors.LimitExceeded`."""
    head = submission.head
    upload = Receiving(db, submission, copies)
    if head.idempotency_key is not None or not submission.whole:
        begun = upload.begin()
        if isinstance(begun, Replay):
            return _replay(db, submission, begun)
    try:
        lanes = Lanes(head.model.caps)
        request_hash, rest = _write_rows(
            upload, submission, lanes, Taken(read, upload.keep, prompt_of)
        )
        specs = lanes.specs(costs)
        total = sum(spec.count for spec in specs)
        if not total:
            raise errors.BadRequest("the submission has no rows", param="body")
        failpoints.reach("submit.written")
        job = upload.finish(
            specs, rest, total=total, request_hash=request_hash, max_queued=max_queued
        )
    except BaseException:
        upload.abandon()
        raise
    finally:
        upload.close()
    return Received(job, replay=False, warnings=head.warnings)


Held = list[Segment | MapBlock]


def _write_rows(
    upload: Receiving, submission: Submission, lanes: Lanes, sources: Taken
) -> tuple[str, Held]:
    """Writes every full batch of rows; returns the request hash and the rest, which is all of
    a small submission."""
    digest = Digest(submission.head.canonical, submission.progress)
    rows = Rows(submission.head, submission.limits, sources, textual=submission.textual)
    held: Held = []
    for draft in rows.drafts(digest.watch(submission.rows)):
        segment = lanes.add(draft)
        if segment is not None:
            held.append(segment)
            for block in lanes.blocks():
                held.append(block)
                upload.write_full(held)
            upload.write_full(held)
    for rest in lanes.finish():
        held.append(rest)
        upload.write_full(held)
    return digest.hexdigest(), held


class Receiving:
    """The upload of one submission. It begins at once, or, where all of the body is here and
    reserves no key, when something has to be kept before the end: a source, a full batch of
    rows. What is small enough never does: one transaction makes it a queued job. A full batch
    is written by a thread of its own while the next one is read, never two at a time."""

    def __init__(
        self, db: Database, submission: Submission, copies: Callable[[Upload], Copies]
    ) -> None:
        self._db = db
        self._submission = submission
        self._open = copies
        self._upload: Upload | None = None
        self._copies: Copies | None = None
        self._heart: Heartbeat | None = None
        self._writer: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None

    def begin(self) -> Upload | Replay:
        head = self._submission.head
        begun = submissions.begin(self._db, head.job, idempotency_key=head.idempotency_key)
        if isinstance(begun, Upload):
            self._upload = begun
            failpoints.reach("submit.begun")
            self._heart = Heartbeat(self._db, begun, self._submission)
        return begun

    def keep(self, sha256: str, data: bytes, content_type: str) -> None:
        """Copies a source into the job's own place."""
        if self._copies is None:
            self._copies = self._open(self._needed())
        self._copies.keep(sha256, data, content_type)

    def write_full(self, held: Held) -> None:
        """Writes what is held once it is a full batch. Raises what the batch before met."""
        if len(held) >= BATCH:
            upload, parts = self._needed(), _sorted(held)
            held.clear()
            self._written()
            self._writer = self._writer or ThreadPoolExecutor(1, "upload-writer")
            self._writing = self._writer.submit(submissions.write, self._db, upload, *parts)

    def _written(self) -> None:
        """Waits for the batch that is being written; raises what it met, once."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def finish(self, specs: Sequence[LaneSpec], rest: Held, **end: Any) -> Job:
        """The queued job."""
        parts = _sorted(rest)
        self._written()
        if self._upload is None:
            return submissions.submit(self._db, self._submission.head.job, specs, *parts, **end)
        return submissions.finish(self._db, self._upload, specs, *parts, **end)

    def abandon(self) -> None:
        """On failure the upload stays `receiving` and silent, or as a tombstone: control
        removes either later."""
        if self._upload is None:
            return
        if self._writer is not None:
            self._writer.shutdown()
        copies = self._copies or self._open(self._upload)
        try:
            submissions.abandon(self._db, self._upload, clear=copies.discard)
        except errors.Error as error:
            log.warning("upload %s could not be removed: %s", self._upload.public_id, error)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.shutdown()
        if self._heart is not None:
            self._heart.stop()

    def _needed(self) -> Upload:
        return self._upload or cast(Upload, self.begin())  # without a key there is no replay


def _sorted(held: Sequence[Segment | MapBlock]) -> tuple[list[Segment], list[MapBlock]]:
    return (
        [part for part in held if isinstance(part, Segment)],
        [part for part in held if isinstance(part, MapBlock)],
    )


def _replay(db: Database, submission: Submission, known: Replay) -> Received:
    """Compares what was sent with what made the job; writes nothing."""
    digest = Digest(submission.head.canonical, submission.progress)
    for _ in digest.watch(submission.rows):
        pass
    if digest.hexdigest() != known.request_hash:
        raise errors.IdempotencyMismatch(
            f"this idempotency key was used with another body, by {known.public_id}",
            param="idempotency_key",
        )
    job = jobs.get(db, submission.head.job.tenant_id, known.public_id)
    return Received(job, replay=True, warnings=submission.head.warnings)


class Heartbeat:
    """Keeps an upload alive from a thread of its own, as long as bytes or rows move."""

    def __init__(self, db: Database, upload: Upload, submission: Submission) -> None:
        self._db = db
        self._upload = upload
        self._progress = submission.progress
        self._over = threading.Event()
        self._progress.touch()
        self._thread = threading.Thread(target=self._run, name="upload-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(BEAT):
            if self._progress.silent() > STALLED:
                continue
            try:
                submissions.beat(self._db, self._upload)
            except errors.Conflict:
                return  # taken over: the next write says so
            except errors.Error as error:
                log.warning("no heartbeat for upload %s: %s", self._upload.public_id, error)
