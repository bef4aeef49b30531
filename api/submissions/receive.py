"""The story of a submission: begin, write segments, finish, or abandon."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from api.submissions.digest import Digest
from api.submissions.lanes import Lanes
from api.submissions.rows import Rows
from api.submissions.sources import Taken
from api.submissions.submission import Submission
from api.submissions.warnings import Warnings
from promptmill import errors, failpoints
from promptmill.records import Job, MapBlock, Replay, Segment, Upload
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
    copies: Callable[[Upload], Copies],
) -> Received:
    """costs: measured generator-seconds per image by bucket. max_queued: the tenant's
    limit. read: the bytes behind a reference to a source. Raises `errors.BadRow` and other
    4xx errors (nothing is left behind), `errors.InProgress`, `errors.IdempotencyMismatch`,
    `errors.LimitExceeded`."""
    head = submission.head
    begun = submissions.begin(db, head.job, idempotency_key=head.idempotency_key)
    if isinstance(begun, Replay):
        return _replay(db, submission, begun)
    store = copies(begun)
    try:
        failpoints.reach("submit.begun")
        with Heartbeat(db, begun, submission):
            lanes = Lanes(head.model.caps)
            sources = Taken(read, store.keep)
            request_hash, rest = _write_rows(db, begun, submission, lanes, sources)
            specs = lanes.specs(costs)
            total = sum(spec.count for spec in specs)
            if not total:
                raise errors.BadRequest("the submission has no rows", param="body")
            failpoints.reach("submit.written")
            job = submissions.finish(
                db,
                begun,
                specs,
                *_sorted(rest),
                total=total,
                request_hash=request_hash,
                max_queued=max_queued,
            )
    except BaseException:
        _abandon(db, begun, store)
        raise
    return Received(job, replay=False, warnings=head.warnings)


def _write_rows(
    db: Database, upload: Upload, submission: Submission, lanes: Lanes, sources: Taken
) -> tuple[str, list[Segment | MapBlock]]:
    """Writes every full batch of rows; returns the request hash and the rest, which is all of
    a small submission: one transaction writes it and queues the job."""
    digest = Digest(submission.head.canonical, submission.progress)
    rows = Rows(submission.head, submission.limits, sources, textual=submission.textual)
    held: list[Segment | MapBlock] = []
    for draft in rows.drafts(digest.watch(submission.rows)):
        segment = lanes.add(draft)
        if segment is not None:
            held.append(segment)
            for block in lanes.blocks():
                held.append(block)
                _write_full(db, upload, held)
            _write_full(db, upload, held)
    for rest in lanes.finish():
        held.append(rest)
        _write_full(db, upload, held)
    return digest.hexdigest(), held


def _write_full(db: Database, upload: Upload, held: list[Segment | MapBlock]) -> None:
    if len(held) >= BATCH:
        submissions.write(db, upload, *_sorted(held))
        held.clear()


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


def _abandon(db: Database, upload: Upload, copies: Copies) -> None:
    """On failure the upload stays `receiving` and silent, or as a tombstone: control removes
    either later."""
    try:
        submissions.abandon(db, upload, clear=copies.discard)
    except errors.Error as error:
        log.warning("upload %s could not be removed: %s", upload.public_id, error)


class Heartbeat:
    """Keeps an upload alive from a thread of its own, as long as bytes or rows move."""

    def __init__(self, db: Database, upload: Upload, submission: Submission) -> None:
        self._db = db
        self._upload = upload
        self._progress = submission.progress
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upload-heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._progress.touch()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
