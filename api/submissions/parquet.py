"""Reader of Parquet bodies. The index of a Parquet file stands at its end, so the body is
spooled to an unnamed file on disk and read batch by batch."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import IO, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from api.submissions.readers import Row, refuse_nul
from promptmill import errors

BATCH = 512  # rows decoded at once


def parquet(
    chunks: Iterable[bytes], *, max_rows: int, max_bytes: int, max_line: int, required: str
) -> Iterator[Row]:
    """Columns as fields, nulls and NaN left out; `line` is the row's number from 1.
    Raises `errors.BadRow`, `errors.TooLarge`, or `errors.Unavailable` when the disk is full."""
    with tempfile.TemporaryFile(prefix="promptmill-") as spool:
        _spool(chunks, spool)
        yield from _rows(spool, max_rows, max_bytes, max_line, required)


def _spool(chunks: Iterable[bytes], spool: IO[bytes]) -> None:
    for chunk in chunks:
        try:
            spool.write(chunk)
        except OSError as error:
            raise errors.Unavailable(
                f"no room for the upload on the server (TMPDIR): {error.strerror}"
            ) from error
    spool.seek(0)


def _rows(
    spool: IO[bytes], max_rows: int, max_bytes: int, max_line: int, required: str
) -> Iterator[Row]:
    line = 0
    try:
        with pq.ParquetFile(spool) as file:
            _check(file, max_rows, max_bytes, required)
            for batch in file.iter_batches(batch_size=BATCH, use_threads=False):
                if batch.nbytes > max_line * BATCH:
                    raise _too_long(line + 1, max_line)
                for fields in _plain(batch.to_pylist(), line + 1):
                    line += 1
                    yield line, fields
    except (pa.ArrowException, orjson.JSONEncodeError, OSError, ValueError, OverflowError) as error:
        text = str(error).partition("\n")[0][:200]
        raise errors.BadRow(f"not valid Parquet: {text}", line=line + 1, param="body") from error


def _plain(rows: list[dict[str, Any]], first: int) -> Iterator[dict[str, Any]]:
    """Rows of JSON values: dates as ISO 8601, decimals and durations as text. first: the
    number of the first."""
    dumped = orjson.dumps(rows, default=str)
    strings_may_hold_nul = b"\\u0000" in dumped
    for line, row in enumerate(orjson.loads(dumped), start=first):
        if strings_may_hold_nul:
            refuse_nul(row, line=line)
        yield {name: value for name, value in row.items() if value is not None}


def _check(file: Any, max_rows: int, max_bytes: int, required: str) -> None:
    meta = file.metadata
    if meta.num_rows > max_rows:
        raise errors.TooLarge(f"more than {max_rows} rows", line=max_rows + 1, param="rows")
    groups = (meta.row_group(i) for i in range(meta.num_row_groups))
    if sum(group.total_byte_size for group in groups) > max_bytes:
        raise errors.TooLarge(f"the decompressed body is over {max_bytes} bytes", param="body")
    schema = file.schema_arrow
    if required not in schema.names:
        known = ", ".join(schema.names)[:200]
        raise errors.BadRequest(
            f"there is no column {required!r}: the file has {known}; "
            "name the column with map=prompt=COLUMN",
            line=1,
            param=required,
        )
    for name, count in Counter(schema.names).items():
        if count > 1:
            raise errors.BadRequest(f"the file has two columns {name!r}", line=1, param=name)
    for column in schema:
        if _holds_bytes(column.type):
            raise errors.BadRequest(
                f"column {column.name!r} holds binary values; leave it out",
                line=1,
                param=column.name,
            )


def _holds_bytes(kind: Any) -> bool:
    types = pa.types
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return True
    return any(_holds_bytes(kind.field(i).type) for i in range(kind.num_fields))


def _too_long(line: int, limit: int) -> errors.TooLarge:
    return errors.TooLarge(f"rows are longer than {limit} bytes", line=line, param="line")
