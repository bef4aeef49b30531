"""From a body to a queued job: the one way in, whichever endpoint the body came to."""

from __future__ import annotations

from typing import Any

from api import sources, submissions
from api.farm import Farm
from promptmill import addresses, failpoints, records
from promptmill.store import models as stored_models


def take(
    farm: Farm, tenant: records.Tenant, body: submissions.Body, *, key: str | None
) -> submissions.Received | dict[str, Any]:
    """Runs in a thread of its own, from the first byte to the queue. A dry run answers its
    plan as JSON. Raises `errors.Error`; nothing is then left behind."""
    settings = farm.settings
    prefixes = [p.strip() for p in settings.output_prefixes.split(",") if p.strip()]
    opened = submissions.open_submission(
        body,
        tenant_id=tenant.id,
        find_model=lambda name: stored_models.get(farm.db, name),
        limits=submissions.Limits.from_settings(settings),
        default_model=settings.model_name,
        idempotency_key=key,
        output_prefixes=prefixes,
    )
    return accept(farm, tenant, opened)


def accept(
    farm: Farm, tenant: records.Tenant, submission: submissions.Submission
) -> submissions.Received | dict[str, Any]:
    """The same for a submission that is open already."""
    settings = farm.settings
    addresses.check_webhook(
        submission.head.job.webhook, any_network=settings.webhook_networks == "any"
    )
    model = submission.model.name
    costs = stored_models.costs(farm.db, model)
    limit = farm.queue_limit(tenant.id)
    found = sources.Found(farm, tenant)
    if submission.head.dry_run:
        workers = len(farm.workers(model) or ())
        made = submissions.plan(
            submission,
            costs=costs,
            workers=workers,
            max_queued=limit,
            read=found.read,
            prompt_of=found.prompt,
        )
        return made.to_json()
    received = submissions.receive(
        farm.db,
        submission,
        costs=costs,
        max_queued=limit,
        read=found.read,
        prompt_of=found.prompt,
        copies=lambda upload: sources.Copies(farm.blobs, upload.output, upload.public_id),
    )
    failpoints.reach("submit.committed")
    if not received.replay:
        farm.accept(received.job, tenant)
    return received
