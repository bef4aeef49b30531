"""What is told to webhooks, and how often it was tried."""

from __future__ import annotations

from sqlalchemy import JSON, Column, Double, Integer, Table, Text

from promptmill.tables.base import Id, metadata, partial_index

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
    partial_index("ix_outbox_due", "due_at", where="due_at IS NOT NULL"),
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
