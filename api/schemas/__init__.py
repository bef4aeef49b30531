"""The shapes of the public contract. Times are Unix seconds; sizes are bytes or pixels."""

from __future__ import annotations

from api.schemas.base import MAX_PAGE, Page, Shape
from api.schemas.exports import Export, ExportDeleted, ExportFile, ExportShard, NewExport
from api.schemas.farm import Health, PublicKey
from api.schemas.faults import Failure, Fault
from api.schemas.images import Image, ImageError, Reroll
from api.schemas.jobs import (
    Counts,
    Deleted,
    Failures,
    Job,
    Output,
    Plan,
    Rendering,
    Retried,
    RetryRequest,
    Submitted,
)
from api.schemas.models import Model, Worker
from api.schemas.verification import Repaired, Verdict, Verdicts, VerdictStatus, VerifyRequest
from api.schemas.webhooks import Attempt, Redelivery, WebhookEvent

__all__ = [
    "MAX_PAGE",
    "Attempt",
    "Counts",
    "Deleted",
    "Export",
    "ExportDeleted",
    "ExportFile",
    "ExportShard",
    "Failure",
    "Failures",
    "Fault",
    "Health",
    "Image",
    "ImageError",
    "Job",
    "Model",
    "NewExport",
    "Output",
    "Page",
    "Plan",
    "PublicKey",
    "Redelivery",
    "Rendering",
    "Repaired",
    "Reroll",
    "Retried",
    "RetryRequest",
    "Shape",
    "Submitted",
    "Verdict",
    "VerdictStatus",
    "Verdicts",
    "VerifyRequest",
    "WebhookEvent",
    "Worker",
]
