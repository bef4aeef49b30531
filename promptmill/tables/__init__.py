"""The tables, as SQLAlchemy Core sees them. Imported by the store and the migrations only.

No foreign key leads from the hot tables to their parents: the lock on a shared parent row
would serialise the workers, and the fence in `job_counters` already decides what may be
written."""

from __future__ import annotations

from promptmill.tables.accounts import api_keys, secrets, tenants
from promptmill.tables.base import metadata
from promptmill.tables.catalogue import models
from promptmill.tables.datasets import export_shards, exports
from promptmill.tables.results import DONE, FAILED, images, incidents, job_counters
from promptmill.tables.submissions import LIVE, jobs, lanes, row_map, segments
from promptmill.tables.uploads import batches, files, upload_parts, uploads
from promptmill.tables.webhooks import outbox, webhook_attempts

__all__ = [
    "DONE",
    "FAILED",
    "LIVE",
    "api_keys",
    "batches",
    "export_shards",
    "exports",
    "files",
    "images",
    "incidents",
    "job_counters",
    "jobs",
    "lanes",
    "metadata",
    "models",
    "outbox",
    "row_map",
    "secrets",
    "segments",
    "tenants",
    "upload_parts",
    "uploads",
    "webhook_attempts",
]
