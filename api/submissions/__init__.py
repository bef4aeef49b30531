"""From an HTTP body to a queued job: parse, validate, expand, group into lanes, write.
Synchronous and free of any web framework; memory stays flat whatever the size.

How a route calls it (in a worker thread; `chunks` is any iterator of bytes, for instance
`request.stream()` pulled with `anyio.from_thread.run`):

    body = submissions.Body(
        chunks,
        content_type=request.headers.get("content-type", ""),
        content_encoding=request.headers.get("content-encoding", ""),
        query=request.query_params.multi_items(),
    )
    submission = submissions.open_submission(
        body,
        tenant_id=tenant.id,
        find_model=lambda name: store.models.get(db, name),
        limits=submissions.Limits.from_settings(settings),
        default_model=settings.model_name,
        idempotency_key=request.headers.get("idempotency-key"),
        output_prefixes=("allowed/one", "two"),
    )
    costs = store.models.costs(db, submission.model.name)
    if submission.head.dry_run:
        return submissions.plan(
            submission, costs=costs, workers=len(live), max_queued=limit, read=read
        ).to_json()
    received = submissions.receive(
        db, submission, costs=costs, max_queued=limit, read=read, copies=copies
    )
    if not received.replay:
        ...  # queue.replace for each lane of received.job, then wake

`open_submission` reads the whole body only of a JSON document (at most 16 MB); it
validates the head. The rows are read by `receive` or `plan`, once. Everything that is
wrong with the input is an `errors.Error` with a 4xx status and, for a row, `line` and
`param`; `receive` then leaves nothing behind. `Received.warnings` and the plan carry what
`on_unsupported=warn` let pass.
"""

from api.submissions.head import Head
from api.submissions.limits import Limits
from api.submissions.plan import Plan, plan
from api.submissions.receive import Received, receive
from api.submissions.submission import Body, Submission, open_submission
from api.submissions.warnings import Warnings

__all__ = [
    "Body",
    "Head",
    "Limits",
    "Plan",
    "Received",
    "Submission",
    "Warnings",
    "open_submission",
    "plan",
    "receive",
]
