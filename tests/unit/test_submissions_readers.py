"""Every form of body, whatever its chunks, and everything that can be wrong with one."""

from __future__ import annotations

import gzip
import io
import tracemalloc
import zlib
from collections.abc import Iterator
from datetime import date
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from api.submissions import Limits, chunks
from promptmill import errors
from tests.unit.submissions_kit import cut, document, drafts, gz, lines, opened, refusal

NDJSON = "application/x-ndjson"
PARQUET = "application/vnd.apache.parquet"
KINDS = (NDJSON, "text/csv", "text/plain", PARQUET, "application/json")

THREE = (
    {"prompt": "a cat", "seed": 5, "mood": "calm"},
    {"prompt": 'say "hello",\nthen leave', "seed": 6, "mood": "ö\u2028é"},
    {"prompt": "a dog", "seed": 7, "mood": "🙂"},
)
CSV = (
    'prompt,seed,mood\r\na cat,5,calm\r\n"say ""hello"",\nthen leave",6,ö\u2028é\r\na dog,7,🙂'
).encode()


def parquet(**columns: Any) -> bytes:
    return written(pa.table(columns))


def written(table: pa.Table) -> bytes:
    held = io.BytesIO()
    pq.write_table(table, held)
    return held.getvalue()


BODIES = {
    NDJSON: lines(*THREE),
    "text/csv": CSV,
    "text/plain": "a cat\n\n  a dog  \r\nö 🙂".encode(),
    PARQUET: parquet(**{key: [row[key] for row in THREE] for key in THREE[0]}),
    "application/json": orjson.dumps({"items": THREE, "seed": 1}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrap", [bytes, gz, lambda body: b"\xef\xbb\xbf" + body])
@settings(max_examples=10, deadline=None)
@given(size=st.integers(1, 300))
@example(size=1)
def test_chunks_do_not_matter(kind: str, wrap: Any, size: int) -> None:
    if kind == PARQUET and wrap not in (bytes, gz):
        return
    query = [] if kind == "application/json" else [("seed", "1")]
    whole = drafts(opened(BODIES[kind], kind, query))
    assert len(whole) == 3
    assert drafts(opened(wrap(BODIES[kind]), kind, query, chunk=size)) == whole


@pytest.mark.parametrize("kind", [NDJSON, "text/csv", PARQUET, "application/json"])
def test_forms_agree(kind: str) -> None:
    found = drafts(opened(BODIES[kind], kind))
    assert [(d.prompt, d.seed, d.metadata) for d in found] == [
        (row["prompt"], row["seed"], {"mood": row["mood"]}) for row in THREE
    ]
    assert [(d.index, d.row, d.sample) for d in found] == [(0, 0, 0), (1, 1, 0), (2, 2, 0)]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(body=st.binary(max_size=300), size=st.integers(1, 64), zipped=st.booleans())
@example(body=b"\x1f\x8b", size=1, zipped=False)
@example(body=b"\xef\xbb", size=1, zipped=False)
@example(body=b'"', size=1, zipped=False)
@example(body=b"PAR1PAR1", size=8, zipped=False)
def test_garbage_is_refused_and_never_breaks(
    kind: str, body: bytes, size: int, zipped: bool
) -> None:
    try:
        drafts(opened(gz(body) if zipped else body, kind, chunk=size))
    except errors.Error as error:
        assert 400 <= error.status < 500


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_damaged_body_is_refused_or_read(kind: str, data: st.DataObject) -> None:
    body = bytearray(BODIES[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        drafts(opened(bytes(body[: data.draw(st.integers(0, len(body)))]), kind))
    except errors.Error as error:
        assert 400 <= error.status < 500


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(
        st.dictionaries(
            st.sampled_from(
                ["prompt", "seed", "n", "size", "steps", "id", "mask", "x", "metadata"]
            ),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
                max_leaves=5,
            ),
        ),
        max_size=4,
    )
)
def test_any_json_rows_give_items_or_an_error(rows: list[Any]) -> None:
    try:
        body = lines(*rows)
    except TypeError:
        return  # no JSON: an integer over 64 bits, a lone surrogate
    try:
        found = drafts(opened(body, limits=Limits(max_images=1000)))
    except errors.Error as error:
        assert error.line is not None and error.param
        assert 400 <= error.status < 500
    else:
        assert {d.row for d in found} == set(range(len(rows)))


@pytest.mark.parametrize(
    ("kind", "body", "line", "param", "says"),
    [
        (NDJSON, b'{"prompt":"a"}\n{"prompt":', 2, "line", "not valid JSON"),
        (NDJSON, b'{"prompt":"a"}\n\n["a"]\n', 3, "line", "must be a JSON object"),
        (NDJSON, b'{"prompt":"a\0b"}', 1, "line", "not valid JSON"),
        (NDJSON, b'{"prompt":"a\\u0000b"}', 1, "prompt", "NUL"),
        (NDJSON, b'{"prompt":"a","x":{"y":["\\u0000"]}}', 1, "x", "NUL"),
        (NDJSON, b'{"prompt":"a"}\n{"prompt":"\xff"}', 2, "line", "not valid JSON"),
        (NDJSON, b'{"prompt":"a"}\n{"seed":1}', 2, "prompt", "no prompt"),
        (NDJSON, b'{"prompt":"a","x":' + b"[" * 40 + b"]" * 40 + b"}", 1, "x", "deeper"),
        (NDJSON, b'{"prompt":"a","x":' + b"[" * 9000 + b"]" * 9000 + b"}", 1, "line", "JSON"),
        (NDJSON, b'{"prompt":"a"}\n{"seed":1,"prompt":"a","seed":2}', 2, "seed", "given twice"),
        (NDJSON, b'{"prompt":"a","x":[{"y" : 1,"y" : 2}]}', 1, "y", "given twice"),
        (NDJSON, b'{"prompt":"a","\\u0070rompt":"b"}', 1, "prompt", "given twice"),
        ("application/json", b'{"name":"a","name":"b","prompts":["c"]}', None, "body", "twice"),
        ("application/json", b'{"items":[{"prompt":"a","prompt":"b"}]}', None, "body", "twice"),
        ("text/csv", b"caption,seed\na,1\n", 1, "prompt", "caption, seed"),
        ("text/csv", b"", 1, "prompt", "no header"),
        ("text/csv", b"prompt;seed\na;1\n", 1, "prompt", "commas"),
        ("text/csv", b"prompt,prompt\na,b\n", 1, "prompt", "two columns"),
        ("text/csv", b"prompt,seed\na,1\nb\n", 3, "line", "1 cells"),
        ("text/csv", b'prompt,seed\n"a\nb",1\n"c', 4, "line", "not valid CSV"),
        ("text/csv", b"prompt,seed\na,1\n\0,2\n", 3, "line", "NUL"),
        ("text/csv", b"prompt,seed\na,x\n", 2, "seed", "integer"),
        ("text/csv", b"prompt,seed\na,1_0\n", 2, "seed", "integer"),
        ("text/csv", b"prompt,seed\na,1\n,2\n", 3, "prompt", "no prompt"),
        ("text/plain", b"a\n\xff\xfe\n", 2, "line", "not UTF-8"),
        ("text/plain", b"a\nb\0\n", 2, "line", "NUL"),
        ("text/plain", b"a\r\nb\rc\rd\n", 2, "line", "carriage return"),
        (PARQUET, b"PAR1 no such thing PAR1", 1, "body", "not valid Parquet"),
        (PARQUET, parquet(caption=["a"]), 1, "prompt", "caption"),
        (PARQUET, parquet(prompt=["a"], image=[b"\x89"]), 1, "image", "binary"),
        (PARQUET, parquet(prompt=["a", None]), 2, "prompt", "no prompt"),
        (PARQUET, parquet(prompt=["a", "b\0"]), 2, "prompt", "NUL"),
        (PARQUET, parquet(prompt=["a", "b"], tags=[["x"], ["\0"]]), 2, "tags", "NUL"),
        (
            PARQUET,
            written(pa.table([["a"]] * 3, ["prompt", "mood", "mood"])),
            1,
            "mood",
            "two columns",
        ),
        ("application/json", b'{"prompts": ["a", ', 1, "body", "not valid JSON"),
        ("application/json", b'{"prompts": ["a", 5]}', 2, "prompt", "string"),
        ("application/json", b'{"items": [{"prompt":"a"}, 5]}', 2, "items", "object"),
        ("application/json", b'{"prompts": ["a", "\\u0000"]}', 2, "prompt", "NUL"),
    ],
)
def test_errors_name_line_and_field(
    kind: str, body: bytes, line: int | None, param: str, says: str
) -> None:
    error = refusal(lambda: drafts(opened(body, kind)))
    assert (error.status, error.line, error.param) == (400, line, param)
    assert says in error.message


def test_colons_are_no_doubles() -> None:
    row = b'{"prompt":"a (best:1.2): b","url":"http://x:1","n":1}'
    (draft,) = drafts(opened(row + b"\n", NDJSON))
    assert draft.prompt == "a (best:1.2): b"


def test_a_document_is_an_object_with_one_source_of_rows() -> None:
    assert refusal(lambda: opened(b"[]", "application/json")).param == "body"
    assert refusal(lambda: document(name="x")).param == "prompts"
    assert refusal(lambda: document(prompts=["a"], items=[])).param == "items"
    assert refusal(lambda: document(prompts="a")).param == "prompts"
    strange = refusal(lambda: document(name="x", rows=["a"]))
    assert strange.param == "rows" and "'rows'" in strange.message
    assert "prompts" in strange.message
    assert refusal(lambda: document(prompts=["a"], variables={})).param == "variables"
    assert [d.prompt for d in drafts(document(prompt="one"))] == ["one"]


@pytest.mark.parametrize(
    "kind", ["", "application/octet-stream", "text/html", "text/csv; charset=latin-1"]
)
def test_other_content_types_are_refused(kind: str) -> None:
    assert refusal(lambda: opened(b"a", kind)).status == 415
    assert refusal(lambda: drafts(opened(b"a", NDJSON, encoding="br"))).status == 415


@pytest.mark.parametrize(
    "options",
    ["charset=utf-8; header=present", 'header=present; charset="UTF-8"', "header=present"],
)
def test_what_else_a_content_type_says_is_not_the_charset(options: str) -> None:
    assert len(drafts(opened(CSV, f"text/csv; {options}"))) == 3


def test_truncated_gzip() -> None:
    body = gz(lines(*[{"prompt": f"prompt number {i}"} for i in range(5000)]))
    for kind in (NDJSON, "text/csv", PARQUET, "application/json"):
        error = refusal(lambda kind=kind: drafts(opened(body[:-9], kind)))
        assert error.status == 400
        if kind == NDJSON:
            assert "ends early" in error.message
            assert error.line == 5001
    damaged = body[:2000] + b"\0" * 50 + body[2050:]
    assert "damaged" in refusal(lambda: drafts(opened(damaged))).message
    assert refusal(lambda: drafts(opened(b"plain", encoding="gzip"))).param == "body"


def test_concatenated_gzip_members_are_one_body() -> None:
    body = gz(lines({"prompt": "a"})) + gz(lines({"prompt": "b"}))
    assert [d.prompt for d in drafts(opened(body, chunk=7))] == ["a", "b"]


def _flood(piece: bytes, total: int, head: bytes = b"") -> Iterator[bytes]:
    yield head
    for _ in range(total // len(piece)):
        yield piece


def _peak(act: Any) -> tuple[errors.Error, int]:
    tracemalloc.start()
    try:
        return refusal(act), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", [NDJSON, "text/csv", "text/plain"])
def test_a_line_of_100_megabytes_is_refused_without_being_held(kind: str) -> None:
    head = b"prompt\n" if kind == "text/csv" else b'{"prompt":"'
    piece = b"x" * 65536
    error, peak = _peak(lambda: drafts(opened(_flood(piece, 100_000_000, head), kind)))
    assert (error.status, error.line) == (413, 2 if kind == "text/csv" else 1)
    assert peak < 10_000_000
    whole = head + b"y" * 20_000_000  # even when it comes as one chunk
    error, peak = _peak(lambda: drafts(opened(iter([whole]), kind)))
    assert error.status == 413
    assert peak < 10_000_000


def test_a_csv_record_is_limited_however_many_lines_it_takes() -> None:
    cell = b'"' + b"line\n" * 1000 + b'",'
    error, peak = _peak(lambda: drafts(opened(_flood(cell, 50_000_000, b"prompt\n"), "text/csv")))
    assert (error.status, error.param) == (413, "line")
    assert peak < 20_000_000


@pytest.mark.parametrize("kind", [NDJSON, "application/json", "text/plain"])
def test_a_gzip_bomb_is_stopped(kind: str) -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b" " * 1_000_000 + b"\n") for _ in range(80)) + packer.flush()
    limits = Limits(max_body_bytes=50_000_000, max_line_bytes=2_000_000)
    error, peak = _peak(lambda: drafts(opened(cut(bomb, 65536), kind, limits=limits)))
    assert error.status == 413
    assert peak < 60_000_000


@pytest.mark.parametrize("kind", [NDJSON, "text/plain", "text/csv"])
@pytest.mark.parametrize("blank", [b"\n", b"\r\n"])
def test_a_bomb_of_empty_lines_is_stopped(kind: str, blank: bytes) -> None:
    head = b"prompt\n" if kind == "text/csv" else b""
    bomb = gzip.compress(head + blank * (chunks.EMPTY_LINES + 2))
    assert len(bomb) < 20_000
    error = refusal(lambda: drafts(opened(bomb, kind)))
    assert (error.status, error.param) == (413, "line")
    assert error.line is not None
    assert error.line > chunks.EMPTY_LINES


def test_a_bomb_of_empty_gzip_members_is_stopped() -> None:
    whole = gzip.compress(b'{"prompt": "p"}\n')
    few = whole + gzip.compress(b"") * chunks.EMPTY_MEMBERS
    assert len(drafts(opened(few, NDJSON))) == 1
    error = refusal(lambda: drafts(opened(few + gzip.compress(b""), NDJSON)))
    assert (error.status, error.param) == (400, "body")


def test_limits_of_rows_and_bytes() -> None:
    body = lines(*[{"prompt": "p"}] * 5)
    assert len(drafts(opened(body, limits=Limits(max_rows=5)))) == 5
    error = refusal(lambda: drafts(opened(body, limits=Limits(max_rows=4))))
    assert (error.status, error.line, error.param) == (413, 5, "rows")
    error = refusal(lambda: drafts(opened(body, limits=Limits(max_body_bytes=40), chunk=10)))
    assert (error.status, error.param, error.line) == (413, "body", 3)
    error = refusal(
        lambda: opened(b'{"prompts":["a"]}', "application/json", limits=Limits(document_bytes=10))
    )
    assert error.status == 413
    table = parquet(prompt=["p"] * 5)
    error = refusal(lambda: drafts(opened(table, PARQUET, limits=Limits(max_rows=4))))
    assert error.status == 413


def test_parquet_values_become_json() -> None:
    body = parquet(
        prompt=["a", "b"],
        seed=[1.0, float("nan")],
        day=[date(2026, 1, 2), None],
        tags=[["x"], []],
    )
    first, second = drafts(opened(body, PARQUET, [("seed", "9")]))
    assert (first.seed, first.metadata) == (1, {"day": "2026-01-02", "tags": ["x"]})
    assert second.metadata == {"tags": []}


def test_parquet_of_many_row_groups_is_read_in_order() -> None:
    held = io.BytesIO()
    pq.write_table(pa.table({"prompt": [f"p{i}" for i in range(3000)]}), held, row_group_size=700)
    found = drafts(opened(held.getvalue(), PARQUET))
    assert [d.prompt for d in found] == [f"p{i}" for i in range(3000)]


class _Full(io.BytesIO):
    def write(self, _: Any) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_the_servers_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: _Full())
    error = refusal(lambda: drafts(opened(BODIES[PARQUET], PARQUET)))
    assert (error.status, error.retry) == (503, True)
    assert "No space left" in error.message
