"""Rows out of tables that other libraries hold in memory: pandas, polars, pyarrow. Looks at
what a table can do and imports none of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol


class Table(Protocol):
    """A DataFrame of pandas or polars, or a Table of pyarrow."""

    @property
    def shape(self) -> tuple[int, int]: ...


Records = Callable[[], Iterator[Mapping[str, Any]]]


def records(table: Any) -> Records | None:
    """What yields a table's rows as dictionaries, again at each call; None for what is no
    table. A cell without a value is left out of its row."""
    if hasattr(table, "itertuples") and hasattr(table, "columns"):  # pandas
        names = [str(name) for name in table.columns]
        return lambda: (
            _row(zip(names, cells, strict=True))
            for cells in table.itertuples(index=False, name=None)
        )
    if hasattr(table, "iter_rows") and hasattr(table, "columns"):  # polars
        return lambda: (_row(row.items()) for row in table.iter_rows(named=True))
    if hasattr(table, "to_batches") and hasattr(table, "column_names"):  # pyarrow
        return lambda: (
            _row(row.items()) for batch in table.to_batches() for row in batch.to_pylist()
        )
    return None


def _row(cells: Any) -> Mapping[str, Any]:
    return {name: plain(value) for name, value in cells if not _is_missing(value)}


def _is_missing(value: Any) -> bool:
    """None, NaN, and what pandas writes for no value and no time."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return type(value).__name__ in ("NAType", "NaTType")


def plain(value: Any) -> Any:
    """A value that JSON can hold: numbers of numpy as Python's, times as ISO 8601. Raises
    `TypeError` for anything else that JSON cannot hold."""
    if value is None or isinstance(value, (str, int, float, list, dict)):
        return value
    for name in ("tolist", "isoformat"):
        convert = getattr(value, name, None)
        if convert is not None:
            return convert()
    raise TypeError(f"{type(value).__name__} is nothing that a row can hold")
