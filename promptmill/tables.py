"""The tables, as SQLAlchemy Core sees them. Imported by the store and the migrations only.

No foreign key leads from the hot tables to their parents: the lock on a shared parent row
would serialise the workers, and the fence in `job_counters` already decides what may be
written."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)
Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by INTEGER only

DONE, FAILED = 2, 3  # images.state
LIVE = "state IN ('receiving', 'queued', 'paused', 'cancelling')"

tenants = Table(
    "tenants",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("weight", Double, nullable=False),
    Column("max_queued", BigInteger),
    Column("created_at", Double, nullable=False),
    sqlite_autoincrement=True,
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Id, ForeignKey("tenants.id"), nullable=False),
    Column("prefix", Text, nullable=False, index=True),
    Column("sha256", LargeBinary, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("revoked_at", Double),
)

models = Table(
    "models",
    metadata,
    Column("name", Text, primary_key=True),
    Column("caps", JSON, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("limits", JSON, nullable=False),  # device -> bucket -> largest batch that fits
    Column("costs", JSON, nullable=False),  # bucket -> measured seconds per image
    Column("updated_at", Double, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("public_id", Text, nullable=False, unique=True),
    Column("tenant_id", Id, nullable=False),
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
    Index(
        "ix_jobs_live",
        "state",
        "tenant_id",
        postgresql_where=text(LIVE),
        sqlite_where=text(LIVE),
    ),
    Index(
        "ix_jobs_deleted",
        "id",
        postgresql_where=text("deleted_at IS NOT NULL"),
        sqlite_where=text("deleted_at IS NOT NULL"),
    ),
    Index(
        "ix_jobs_unswept",
        "id",
        postgresql_where=text("swept < ended"),
        sqlite_where=text("swept < ended"),
    ),
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

images = Table(
    "images",
    metadata,
    Column("lane", Id, primary_key=True, autoincrement=False),  # lanes.id
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("job_id", Id, nullable=False),
    Column("index", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("attempt", SmallInteger, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("render_ms", Double, nullable=False),
    Column("finished_at", Double, nullable=False),
    Column("worker", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("sha256", LargeBinary),
    Column("key", Text),
    Column("offset", BigInteger),
    Column("length", BigInteger),
    Column("score", Double),
    Column("rerolls", Text),  # JSON: [seed, score] of each attempt, where some were asked for
    Column("expanded_prompt", Text),  # as rendered, where the row asked for expansion
    Column("error_code", Text),
    Column("error_text", Text),
    Index(
        "ix_images_failed",
        "job_id",
        "index",
        postgresql_where=text("state = 3"),
        sqlite_where=text("state = 3"),
    ),
    Index(
        "ix_images_sha256",
        "sha256",
        postgresql_where=text("sha256 IS NOT NULL"),
        sqlite_where=text("sha256 IS NOT NULL"),
    ),
    sqlite_with_rowid=False,
)

job_counters = Table(
    "job_counters",
    metadata,
    Column("job_id", Id, primary_key=True, autoincrement=False),
    Column("shard", SmallInteger, primary_key=True, autoincrement=False),
    Column("generation", Integer, nullable=False),
    Column("done", BigInteger, nullable=False, server_default="0"),
    Column("failed", BigInteger, nullable=False, server_default="0"),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
    Column("closed", Boolean, nullable=False, server_default=false()),
    sqlite_with_rowid=False,
    postgresql_with={"fillfactor": 50},  # room on the page keeps the updates in place
)

incidents = Table(
    "incidents",
    metadata,
    Column("id", Id, primary_key=True),
    Column("lease_id", Text, nullable=False),
    Column("job_id", Id, nullable=False, index=True),
    Column("lane", Id, nullable=False),
    Column("start", Integer, nullable=False),
    Column("count", Integer, nullable=False),
    Column("attempt", SmallInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("worker", Text, nullable=False),
    Column("at", Double, nullable=False),
    UniqueConstraint("lease_id", "lane", "start"),
    Index("ix_incidents_lane_start", "lane", "start"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Id, primary_key=True),
    Column("job_id", Id, index=True),  # null: of something that never became a job
    Column("event", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("payload", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("due_at", Double),  # null: sent, or given up
    Column("sent_at", Double),
    Index(
        "ix_outbox_due",
        "due_at",
        postgresql_where=text("due_at IS NOT NULL"),
        sqlite_where=text("due_at IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
)

webhook_attempts = Table(
    "webhook_attempts",
    metadata,
    Column("event_id", Id, primary_key=True, autoincrement=False),  # outbox.id
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("status", Integer),  # of the answer; null: there was none
    Column("error", Text),
)

exports = Table(
    "exports",
    metadata,
    Column("id", Id, primary_key=True),
    Column("public_id", Text, nullable=False, unique=True),
    Column("job_id", Id, nullable=False, index=True),
    Column("tenant_id", Id, nullable=False, index=True),
    Column("format", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("shard_images", Integer, nullable=False),
    Column("columns", JSON(none_as_null=True)),  # null: the rows were not looked through yet
    Column("generation", Integer, nullable=False),  # of the job, up to which shards are planned
    Column("planned", BigInteger, nullable=False),  # images 0 to planned - 1 stand in shards
    Column("shards", Integer, nullable=False),  # so many numbers are given away
    Column("cards", Integer, nullable=False),
    Column("repairs", JSON, nullable=False),  # [end, low, high]: late images not planned yet
    Column("error", Text),
    Column("created_at", Double, nullable=False),
    Column("finished_at", Double),
    Column("deleted_at", Double),
    Column("erased_at", Double),  # when its objects were swept first
    Index(
        "ix_exports_deleted",
        "id",
        postgresql_where=text("deleted_at IS NOT NULL"),
        sqlite_where=text("deleted_at IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
)

export_shards = Table(
    "export_shards",
    metadata,
    Column("export_id", Id, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),  # below 0: a card
    Column("kind", Text, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("end", BigInteger, nullable=False),
    Column("low", Integer, nullable=False),  # images of a generation above this
    Column("high", Integer, nullable=False),  # and up to this
    Column("state", Text, nullable=False),
    Column("fence", Integer, nullable=False),  # how often it was claimed
    Column("faults", Integer, nullable=False),  # how often its builder raised
    Column("owner", Text),
    Column("leased_until", Double),
    Column("files", JSON, nullable=False),
    Column("summary", JSON, nullable=False),
    Column("sealed_at", Double),
    Index(
        "ix_export_shards_open",
        "export_id",
        "number",
        postgresql_where=text("state IN ('planned', 'building')"),
        sqlite_where=text("state IN ('planned', 'building')"),
    ),
    sqlite_with_rowid=False,
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
)

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
    Index(
        "ix_files_expires_at",
        "expires_at",
        postgresql_where=text("expires_at IS NOT NULL"),
        sqlite_where=text("expires_at IS NOT NULL"),
    ),
    Index(
        "ix_files_unready",
        "id",
        postgresql_where=text("state IN ('receiving', 'deleted')"),
        sqlite_where=text("state IN ('receiving', 'deleted')"),
    ),
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
    Index(
        "ix_batches_alive",
        "id",
        postgresql_where=text("status IS NULL"),
        sqlite_where=text("status IS NULL"),
    ),
    sqlite_autoincrement=True,
)
