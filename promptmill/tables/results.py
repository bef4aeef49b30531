"""Images and how many there are: what became of the rows."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    false,
)

from promptmill.tables.base import Id, metadata, partial_index

DONE, FAILED = 2, 3  # images.state

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
    partial_index("ix_images_failed", "job_id", "index", where="state = 3"),
    partial_index("ix_images_sha256", "sha256", where="sha256 IS NOT NULL"),
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
