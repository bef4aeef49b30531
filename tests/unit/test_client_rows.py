"""Rows for the SDK out of tables and documents."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pytest

from promptmill import errors
from promptmill.client import body
from promptmill.client.frames import plain
from promptmill.client.sources import from_path, from_stream, with_parameters


def rows(given: Any) -> list[dict[str, Any]]:
    found = body(given)
    assert found.format == "jsonl"
    first, again = (b"".join(found.open()) for _ in range(2))
    assert first == again, "a body can be sent again"
    return [json.loads(line) for line in first.splitlines()]


def test_a_table_of_pyarrow_is_rows_without_empty_cells() -> None:
    table = pyarrow.table({"prompt": ["a", "b"], "seed": [1, None], "tags": [["x"], []]})
    assert rows(table) == [{"prompt": "a", "seed": 1, "tags": ["x"]}, {"prompt": "b", "tags": []}]


def test_a_frame_of_pandas_is_rows_without_empty_cells() -> None:
    frame = pandas.DataFrame(
        {
            "prompt": ["a", "b"],
            "seed": pandas.array([1, None], dtype="Int64"),
            "guidance": [np.float32(2.5), float("nan")],
            "when": [pandas.Timestamp("2026-01-02"), pandas.NaT],
            7: [True, False],
        }
    )
    assert rows(frame) == [
        {"prompt": "a", "seed": 1, "guidance": 2.5, "when": "2026-01-02T00:00:00", "7": True},
        {"prompt": "b", "7": False},
    ]


class Polars:
    """What a DataFrame of polars offers."""

    columns = ("prompt", "seed")
    shape = (2, 2)

    def iter_rows(self, *, named: bool) -> Iterator[dict[str, Any]]:
        assert named
        yield {"prompt": "a", "seed": 1}
        yield {"prompt": "b", "seed": None}


def test_a_frame_of_polars_is_rows() -> None:
    assert rows(Polars()) == [{"prompt": "a", "seed": 1}, {"prompt": "b"}]


def test_values_of_numpy_and_dates_become_plain() -> None:
    given = [{"prompt": "a", "seed": np.int64(5), "v": np.array([1, 2]), "d": date(2026, 1, 2)}]
    assert rows(given) == [{"prompt": "a", "seed": 5, "v": [1, 2], "d": "2026-01-02"}]
    with pytest.raises(TypeError, match="set"):
        plain({1})


def test_one_dictionary_is_a_document() -> None:
    document = {"template": "a ${c} ball", "variables": {"c": ["red", "blue"]}}
    found = body(document)
    assert (found.format, json.loads(b"".join(found.open()))) == ("json", document)


@pytest.mark.parametrize("packed", [False, True])
def test_what_holds_for_all_rows_of_a_document_stands_in_it(packed: bool) -> None:
    document = {"prompts": ["a"], "seed": 1}
    given = json.dumps(document).encode()
    source = from_stream(io.BytesIO(gzip.compress(given) if packed else given), format="json")
    found = with_parameters(source, {"n": 2, "size": ["64x64", "32x32"]})
    assert (found.format, found.gzipped) == ("json", False)
    told = json.loads(b"".join(found.open()))
    assert told == {**document, "n": 2, "size": ["64x64", "32x32"]}
    with pytest.raises(errors.BadRequest, match="seed is given twice"):
        with_parameters(source, {"seed": 2})


@pytest.mark.parametrize("name", ["prompts.tsv", "prompts.tsv.gz", "prompts", "prompts.tab"])
def test_columns_between_tabs_are_refused(tmp_path: Path, name: str) -> None:
    """As lines of text, header and seeds would be drawn."""
    path, rows = tmp_path / name, b"seed\tprompt\n1\ta cat\n"
    path.write_bytes(gzip.compress(rows) if name.endswith(".gz") else rows)
    with pytest.raises(errors.BadRequest, match="save them as CSV"):
        from_path(path)
    assert from_path(path, format="txt").format == "txt"


def test_a_damaged_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.gz"
    path.write_bytes(b"\x1f\x8bno gzip at all")
    with pytest.raises(errors.BadRequest, match="the gzip is damaged"):
        from_path(path)


@pytest.mark.parametrize("wrong", [b"[1]", b'{"prompts": ', b"\xff"])
def test_a_document_that_is_none_is_left_to_the_farm(wrong: bytes) -> None:
    source = from_stream(io.BytesIO(wrong), format="json")
    assert b"".join(with_parameters(source, {"n": 2}).open()) == wrong


@pytest.mark.parametrize("given", [[1], [None], [["a"]]])
def test_what_is_no_row_is_named(given: list[Any]) -> None:
    with pytest.raises(errors.BadRequest, match=type(given[0]).__name__):
        b"".join(body(given).open())
