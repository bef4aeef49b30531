"""Uploaded files, those that come in parts, and the batches of requests that they held."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Double, Index, Table, Text, UniqueConstraint

from promptmill.tables.base import Id, metadata, partial_index

files = Table(
    "files",
    metadata,
    Column("id", Id, primary_key=True),
    Column("public_id", Text, nullable=False, unique=True),
    Column("tenant_id", Id, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("state", Text, nullable=False),  # receiving | open | ready | deleted
    Column("bytes", BigInteger, nullable=False),
    Column("batch_id", Id),  # whose output or errors it is: made from rows, no object
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Index("ix_files_tenant_id_id", "tenant_id", "id"),
    partial_index("ix_files_expires_at", "expires_at", where="expires_at IS NOT NULL"),
    partial_index("ix_files_unready", "id", where="state IN ('receiving', 'deleted')"),
    sqlite_autoincrement=True,
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", Id, primary_key=True),
    Column("public_id", Text, nullable=False, unique=True),
    Column("tenant_id", Id, nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),  # of the whole file, as announced
    Column("state", Text, nullable=False),  # pending | completed | cancelled
    Column("keep_seconds", Double),  # for which its file is kept; null: until it is deleted
    Column("file_id", Text),  # files.public_id, once it is completed
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False, index=True),
    sqlite_autoincrement=True,
)

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("public_id", Text, nullable=False, unique=True),
    Column("upload_id", Id, nullable=False, index=True),
    Column("bytes", BigInteger),  # null: they are arriving
    Column("created_at", Double, nullable=False),
    sqlite_autoincrement=True,
)

batches = Table(
    "batches",
    metadata,
    Column("id", Id, primary_key=True),
    Column("public_id", Text, nullable=False, unique=True),
    Column("tenant_id", Id, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("input_file", Text, nullable=False),  # files.public_id
    Column("output_file", Text, nullable=False),
    Column("error_file", Text, nullable=False),
    Column("completion_window", Text, nullable=False),
    Column("priority", Text, nullable=False),
    Column("packing", Text, nullable=False),
    Column("webhook", Text),
    Column("metadata", JSON(none_as_null=True)),
    Column("base_url", Text, nullable=False),  # where links of its files lead
    Column("output_expires_in", Double, nullable=False),
    Column("idempotency_key", Text),
    Column("request_hash", Text, nullable=False),  # by which a request sent again is known
    Column("status", Text),  # null while it lives, else the last one
    Column("claimed_until", Double, nullable=False),  # by the process that works on it
    Column("model", Text),
    Column("job_id", Id, index=True),  # once its lines are valid
    Column("requests", BigInteger, nullable=False),
    Column("completed", BigInteger, nullable=False),  # requests; once it has ended
    Column("failed", BigInteger, nullable=False),
    Column("errors", JSON(none_as_null=True)),  # of its lines: it failed
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("in_progress_at", Double),
    Column("cancelling_at", Double),
    Column("finalizing_at", Double),
    Column("ended_at", Double),
    UniqueConstraint("tenant_id", "idempotency_key"),
    Index("ix_batches_tenant_id_id", "tenant_id", "id"),
    Index("ix_batches_request_hash", "tenant_id", "request_hash"),
    partial_index("ix_batches_alive", "id", where="status IS NULL"),
    sqlite_autoincrement=True,
)
