"""Jobs and their rows: what was asked for."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)

from promptmill.tables.base import Id, metadata, partial_index

LIVE = "state IN ('receiving', 'queued', 'paused', 'cancelling')"

jobs = Table(
    "jobs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("public_id", Text, nullable=False, unique=True),
    Column("tenant_id", Id, nullable=False),
    Column("verifies", Id),  # the job whose images it renders again; deleted with it
    Column("name", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("priority", Text, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),  # while receiving: what came so far
    Column("generation", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("defaults", JSON, nullable=False),
    Column("output", JSON, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("recipe", JSON(none_as_null=True)),
    Column("webhook", Text),
    Column("fingerprint", Text),
    Column("error", Text),
    Column("idempotency_key", Text),
    Column("request_hash", Text),
    Column("upload_epoch", Integer, nullable=False),
    Column("upload_beat", Double, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("expires_at", Double),
    Column("deleted_at", Double),  # asked for while live, done once the job is final
    Column("erased_at", Double),  # a tombstone: when its objects were swept first
    Column("ended", Integer, nullable=False),  # generations that are over
    Column("swept", Integer, nullable=False),  # generations whose orphans are gone
    UniqueConstraint("tenant_id", "idempotency_key"),
    Index("ix_jobs_tenant_id_id", "tenant_id", "id"),
    partial_index("ix_jobs_live", "state", "tenant_id", where=LIVE),
    partial_index("ix_jobs_deleted", "id", where="deleted_at IS NOT NULL"),
    partial_index("ix_jobs_verifies", "verifies", where="verifies IS NOT NULL"),
    partial_index("ix_jobs_unswept", "id", where="swept < ended"),
    sqlite_autoincrement=True,
)

lanes = Table(
    "lanes",
    metadata,
    Column("id", Id, primary_key=True),
    Column("job_id", Id, nullable=False),
    Column("number", SmallInteger, nullable=False),
    Column("bucket", Text, nullable=False),
    Column("cost", Double, nullable=False),
    Column("count", Integer, nullable=False),
    UniqueConstraint("job_id", "number"),
    sqlite_autoincrement=True,
)

segments = Table(
    "segments",
    metadata,
    Column("job_id", Id, primary_key=True, autoincrement=False),
    Column("lane", SmallInteger, primary_key=True, autoincrement=False),  # its number
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("first", Integer, nullable=False),
    Column("count", Integer, nullable=False),
    Column("first_index", Integer, nullable=False),
    Column("codec", SmallInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Index("ix_segments_first_index", "job_id", "lane", "first_index", "number", "count"),
)

row_map = Table(
    "row_map",
    metadata,
    Column("job_id", Id, primary_key=True, autoincrement=False),
    Column("block", Integer, primary_key=True, autoincrement=False),
    Column("payload", LargeBinary, nullable=False),
)
