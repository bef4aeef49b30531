"""Segments come back as they went in, small, and say so when they are damaged."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptmill import errors, segments
from promptmill.jobs import Item, derive_seed

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
JSON: st.SearchStrategy[Any] = st.dictionaries(
    TEXT,
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(-1, 1), TEXT),
    max_size=3,
)
ITEMS = st.lists(
    st.builds(
        Item,
        index=st.integers(0, 10_000_000),
        row=st.integers(0, 10_000_000),
        sample=st.integers(0, 3),
        prompt=TEXT,
        seed=st.integers(0, 2**53 - 1),
        width=st.sampled_from([64, 128]),
        height=st.just(64),
        guidance=st.sampled_from([0.0, 7.0, 7.5]),
        custom_id=st.none() | TEXT,
        metadata=JSON,
    ),
    min_size=1,
    max_size=20,
)


def plain(count: int) -> list[Item]:
    words = ["red", "fox", "under", "old", "moon", "beside", "quiet", "blue", "water", "by", "a"]
    return [
        Item(
            index=i,
            row=i,
            sample=0,
            prompt=" ".join(words[(i * k + i // k) % len(words)] for k in range(3, 15)),
            seed=derive_seed(1, i),
            width=64,
            height=64,
        )
        for i in range(count)
    ]


@given(ITEMS)
@settings(deadline=None, max_examples=60)
def test_items_come_back(items: list[Item]) -> None:
    payload = segments.encode(items)
    assert repr(segments.decode(payload)) == repr(items)  # repr tells 1 from 1.0 and True
    assert segments.first_index(payload) == items[0].index
    columns = segments.columns(payload)
    assert [columns[i] for i in range(len(columns))] == items
    assert columns[-1] == items[-1]
    assert [columns.index_of(i) for i in range(len(items))] == [item.index for item in items]


def test_values_that_python_holds_equal_stay_apart() -> None:
    kinds: list[Any] = [1, 1.0, True]
    items = [Item(i, i, 0, "p", 1, 64, 64, metadata={"a": kind}) for i, kind in enumerate(kinds)]
    assert [type(item.metadata["a"]) for item in segments.decode(segments.encode(items))] == [
        int,
        float,
        bool,
    ]


def test_what_never_changes_costs_nothing() -> None:
    short, long = plain(1024), plain(1024)
    long = [Item(i, i, 0, it.prompt, it.seed, 64, 64, "blurry, " * 50) for i, it in enumerate(long)]
    assert len(segments.encode(long)) < len(segments.encode(short)) + 200
    assert len(segments.encode(short)) < 1024 * 40


def test_an_index_beyond_the_segment_is_an_index_error() -> None:
    columns = segments.columns(segments.encode(plain(3)))
    assert [item.index for item in columns[1:]] == [1, 2]
    with pytest.raises(IndexError):
        columns[3]


def test_damage_and_bad_text_are_named() -> None:
    payload = bytearray(segments.encode(plain(9)))
    with pytest.raises(errors.Internal, match="damaged"):
        segments.decode(bytes(payload[:20]))
    with pytest.raises(errors.Internal, match="damaged"):
        segments.decode_map(b"not zstd")
    with pytest.raises(errors.BadRequest):
        segments.encode([Item(0, 0, 0, "\ud800", 1, 64, 64)])


@given(st.lists(st.tuples(st.integers(0, 63), st.integers(0, 10_000_000)), max_size=1024))
@settings(deadline=None, max_examples=40)
def test_a_row_map_comes_back(places: list[tuple[int, int]]) -> None:
    assert segments.decode_map(segments.encode_map(places)) == places


def test_a_regular_row_map_is_tiny() -> None:
    places = [(i % 3, i // 3) for i in range(10_000_000 - 1024, 10_000_000)]
    assert segments.decode_map(segments.encode_map(places)) == places
    assert len(segments.encode_map(places)) < 100
