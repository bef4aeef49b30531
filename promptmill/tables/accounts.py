"""Tenants, their keys, and the farm's own secrets."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, ForeignKey, LargeBinary, Table, Text

from promptmill.tables.base import Id, metadata

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

secrets = Table(
    "secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
)
