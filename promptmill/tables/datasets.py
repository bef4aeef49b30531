"""Exports and their shards."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Double, Integer, Table, Text

from promptmill.tables.base import Id, metadata, partial_index

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
    partial_index("ix_exports_deleted", "id", where="deleted_at IS NOT NULL"),
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
    # out of these two, to be summed at every look at the export
    Column("images", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sealed_at", Double),
    partial_index(
        "ix_export_shards_open", "export_id", "number", where="state IN ('planned', 'building')"
    ),
    sqlite_with_rowid=False,
)
