"""The models that a farm has been told of."""

from __future__ import annotations

from sqlalchemy import JSON, Column, Double, Table, Text

from promptmill.tables.base import metadata

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
