"""Exports in pure functions: the columns that rows have, and which images are the same."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
from pyarrow import parquet

from promptmill import errors, exports
from promptmill.exports import BOOLEAN, INTEGER, NUMBER, TEXT, Format, Schema
from worker.exports import duplicates, formats


def schema(*rows: dict[str, Any]) -> dict[str, str]:
    made = Schema()
    made.add(rows)
    return {column.field: column.type for column in made.columns()}


def test_a_column_has_the_type_that_all_its_values_fit() -> None:
    rows = [
        {"whole": 1, "mixed": 1, "number": 1, "flag": True, "nothing": None, "late": None},
        {"whole": None, "mixed": "x", "number": 0.5, "flag": False, "huge": 2**63, "late": 7},
        {"tags": ["a"], "flagged": 1},
        {"flagged": True},
    ]
    expected = {
        "flag": BOOLEAN, "flagged": TEXT, "huge": TEXT, "late": INTEGER, "mixed": TEXT,
        "nothing": TEXT, "number": NUMBER, "tags": TEXT, "whole": INTEGER,
    }  # fmt: skip
    assert schema(*rows) == expected
    assert schema(*reversed(rows)) == expected, "whatever the order of the rows"


def test_what_a_row_lacks_is_never_null() -> None:
    made = Schema()
    made.add([{"a": 1, "b": 0.5, "c": "x", "d": True, "e": [1, "ü"]}])
    columns = made.columns()
    assert exports.values(columns, {}) == {"a": -1, "b": -1.0, "c": "", "d": False, "e": ""}
    given = exports.values(columns, {"b": 2, "e": [1, "ü"]})
    assert (given["b"], type(given["b"]), given["e"]) == (2.0, float, '[1, "ü"]')


def test_names_that_are_taken_get_an_underscore() -> None:
    made = Schema()
    made.add([{"Seed": 1, "image": 2, "my_file_name": 3, "ok": 4, "seed_": 5}])
    names = {column.field: column.name for column in made.columns()}
    assert names == {
        "Seed": "Seed_", "image": "image_", "my_file_name": "my_file_name_",
        "ok": "ok", "seed_": "seed__",
    }  # fmt: skip


def test_a_text_that_looks_like_a_date_stays_a_text() -> None:
    """Readers guess the types of JSON lines; in Parquet they are said."""
    made = Schema()
    made.add([{"day": "2024-05-01"}])
    columns = made.columns()
    info = {name: exports.ABSENT[type] for name, type in exports.ITEM_COLUMNS.items()}
    info |= {"custom_id": "2024-05-01", **exports.values(columns, {"day": "2024-05-01"})}
    writer = formats.writer(Format.IMAGEFOLDER, columns, extension="png", shard="00003")
    writer.add(formats.Sample(7, b"picture", "a tree", info))
    with tarfile.open(fileobj=io.BytesIO(writer.close())) as packed:
        assert packed.getnames() == [
            "data/train-00003/000000007.png",
            "data/train-00003/metadata.parquet",
        ]
        described = packed.extractfile("data/train-00003/metadata.parquet")
        assert described is not None
        table = parquet.read_table(io.BytesIO(described.read()))
    assert {str(table.schema.field(name).type) for name in ("custom_id", "day")} == {"string"}
    assert table.to_pylist() == [{"file_name": "000000007.png", "text": "a tree", **info}]


def test_rows_that_are_no_table_are_refused() -> None:
    with pytest.raises(errors.BadRequest, match="256"):
        Schema().add({f"field{i}": i} for i in range(300))


@pytest.mark.parametrize("at_once", [1_000_000, 3])
def test_images_that_are_the_same_are_found_file_by_file(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Indexes 0 to 9: two requests are alike thrice, one file is there four times."""
    monkeypatch.setattr(duplicates, "AT_ONCE", at_once)
    requests = [5, 6, 5, 7, 8, 9, 6, 10, 11, 5]
    files = [1, 2, 1, 3, 1, 4, 5, 6, 1, 7]

    def signatures() -> Iterator[bytes]:
        for first in (0, 5):
            yield b"".join(
                struct.pack("<QQQQQ", i, requests[i], 0, files[i], 99)
                for i in range(first, first + 5)
            )

    found = duplicates.find(signatures(), images=10)
    assert found["request"].report() == {
        "groups": 2, "surplus": 3, "examples": [[0, 2, 9], [1, 6]],
    }  # fmt: skip
    assert found["bytes"].report() == {"groups": 1, "surplus": 3, "examples": [[0, 2, 4, 8]]}


def test_of_many_groups_some_are_named_and_all_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """All files are the same, and each request is there twice."""
    monkeypatch.setattr(duplicates, "AT_ONCE", 64)
    count = 1000
    signatures = [struct.pack("<QQQQQ", i, i % 500, 7, 3, 3) for i in range(count)]
    found = duplicates.find(signatures, images=count)
    assert (found["request"].groups, found["request"].surplus) == (500, 500)
    assert len(found["request"].examples) == duplicates.EXAMPLES
    assert all(other == first + 500 for first, other in found["request"].examples)
    [named] = found["bytes"].examples
    assert named == list(range(duplicates.NAMED))
    assert (found["bytes"].groups, found["bytes"].surplus) == (1, count - 1)
