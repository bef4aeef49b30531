"""What all tables share: names of constraints, numbers of rows, indexes of a part of a table."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, Integer, MetaData, text

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by INTEGER only


def partial_index(name: str, *columns: str, where: str) -> Index:
    """An index of those rows alone for which the SQL condition `where` holds."""
    return Index(name, *columns, postgresql_where=text(where), sqlite_where=text(where))
