"""What a row becomes: fields, defaults, products, samples, seeds, and what the model can
and cannot honour."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import rows as sent_back
from api.submissions import Limits
from api.submissions.rows import Draft, Rows
from api.submissions.sources import Taken
from promptmill import errors, jobs, records
from tests.unit.submissions_kit import document, drafts, lines, opened, read, refusal, sha

RICH = ("model", "rich")


def one(query: list[tuple[str, str]], **row: Any) -> Draft:
    (draft,) = drafts(opened(lines(row), query=query))
    return draft


def test_a_draft_is_an_item_in_everything_but_type() -> None:
    assert Draft._fields == jobs.ITEM_FIELDS
    item = one([("seed", "3")], prompt="a", id="x", mood="calm").item()
    assert item == jobs.Item(
        index=0,
        row=0,
        sample=0,
        prompt="a",
        seed=jobs.derive_seed(3, 0),
        width=64,
        height=64,
        custom_id="x",
        metadata={"mood": "calm"},
    )


def test_a_picture_from_nothing_has_no_strength() -> None:
    given, usual = one([RICH], prompt="a", strength=0.5), one([RICH], prompt="a")
    assert given.strength == usual.strength == 1.0


def test_a_row_may_set_every_field() -> None:
    draft = one(
        [RICH, ("size", "64x64"), ("steps", "9")],
        prompt=" a b ",
        negative_prompt="c",
        seed=2**53 - 1,
        size="128X128",
        steps=50,
        guidance=3,
        task="img2img",
        source="file_1",
        strength=0.5,
        min_score=0.9,
        max_rerolls=3,
        expand=True,
        id=17,
        metadata={"k": [1]},
        style="oil",
    )
    assert draft[3:] == (
        " a b ", 2**53 - 1, 128, 128, "c", 50, 3.0, "img2img", sha("file_1"), None, 0.5, "", 0.9, 3,
        True, "17",
        {"style": "oil", "k": [1]},
    )  # fmt: skip


def test_the_row_wins_over_the_default_and_the_default_over_the_model() -> None:
    rows = [{"prompt": "a"}, {"prompt": "a", "steps": 3, "size": "64x64"}, {"prompt": "a", "n": 1}]
    found = drafts(
        opened(lines(*rows), query=[RICH, ("size", "128x128"), ("steps", "5"), ("n", "2")])
    )
    assert [(d.row, d.sample, d.width, d.steps, d.guidance) for d in found] == [
        (0, 0, 128, 5, 7.5),
        (0, 1, 128, 5, 7.5),
        (1, 0, 64, 3, 7.5),
        (1, 1, 64, 3, 7.5),
        (2, 0, 128, 5, 7.5),
    ]


def test_seeds() -> None:
    rows = [{"prompt": "a", "seed": 7, "n": 3}, {"prompt": "b", "n": 2}]
    found = drafts(opened(lines(*rows), query=[("seed", "11")]))
    derive = jobs.derive_seed
    assert [d.seed for d in found] == [
        7, derive(7, 1), derive(7, 2), derive(11, 3), derive(11, 4),
    ]  # fmt: skip
    assert [d.index for d in found] == [0, 1, 2, 3, 4]


def test_listed_defaults_make_the_product_in_a_fixed_order() -> None:
    submission = document(
        model="rich",
        prompts=["a", "b"],
        seed=[1, 2],
        guidance=[3, 4],
        size=["64x64", "128x128"],
        n=2,
    )
    found = drafts(submission)
    assert len(found) == 2 * 8 * 2
    assert [(d.width, d.guidance, d.seed) for d in found[:16:2]] == [
        (64, 3, 1), (64, 3, 2), (64, 4, 1), (64, 4, 2),
        (128, 3, 1), (128, 3, 2), (128, 4, 1), (128, 4, 2),
    ]  # fmt: skip
    assert [d.sample for d in found] == [*range(16), *range(16)]
    assert [d.row for d in found] == [0] * 16 + [1] * 16
    assert found[1].seed == jobs.derive_seed(1, 1)


def test_a_row_takes_itself_out_of_the_product() -> None:
    rows = [{"prompt": "a", "size": "128x128"}, {"prompt": "b"}]
    query = [("size", "64x64"), ("size", "128x128"), ("seed", "1"), ("seed", "2")]
    found = drafts(opened(lines(*rows), query=query))
    assert [(d.prompt, d.width, d.seed) for d in found] == [
        ("a", 128, 1), ("a", 128, 2),
        ("b", 64, 1), ("b", 64, 2), ("b", 128, 1), ("b", 128, 2),
    ]  # fmt: skip


def test_columns_can_be_mapped() -> None:
    body = b"caption,my_seed,prompt\na cat,5,old\n"
    (draft,) = drafts(opened(body, "text/csv", [("map", "prompt=caption,seed=my_seed")]))
    assert (draft.prompt, draft.seed, draft.metadata) == ("a cat", 5, {"prompt": "old"})
    query = [("map", "prompt=caption")]
    error = refusal(lambda: drafts(opened(b"text\na\n", "text/csv", query)))
    assert (error.line, error.param) == (1, "caption")
    error = refusal(lambda: drafts(opened(lines({"prompt": "a"}), query=query)))
    assert (error.line, error.param) == (1, "prompt")
    assert "no caption" in error.message


def test_booleans_of_a_csv_may_be_written_as_spreadsheets_do() -> None:
    body = b"prompt,expand\na,True\nb,TRUE\nc,yes\nd,1\ne,False\nf,no\ng,0\n"
    found = drafts(opened(body, "text/csv", [RICH]))
    assert [draft.expand for draft in found] == [True] * 4 + [False] * 3
    error = refusal(lambda: drafts(opened(b"prompt,expand\na,on\n", "text/csv", [RICH])))
    assert (error.line, error.param) == (2, "expand")


def test_csv_cells_are_read_as_numbers_and_empty_ones_are_absent() -> None:
    body = b"prompt,seed,n,steps,id,note\na,5,,20,,\nb,6.0,2,3,x,hello\n"
    found = drafts(opened(body, "text/csv", [RICH]))
    assert [(d.prompt, d.seed, d.steps, d.custom_id, d.metadata) for d in found[:2]] == [
        ("a", 5, 20, None, {}),
        ("b", 6, 3, "x", {"note": "hello"}),
    ]
    assert len(found) == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", ""), ("prompt", "  "), ("prompt", 5), ("prompt", None), ("prompt", ["a"]),
        ("prompt", "x" * 32_001),
        ("seed", -1), ("seed", 2**53), ("seed", 1.5), ("seed", "5"), ("seed", True), ("seed", [1]),
        ("seed", 1e300), ("n", 0), ("n", 10_001), ("n", "2"), ("n", 1.5),
        ("size", "64"), ("size", 64), ("size", [64, 64]), ("size", "0x64"), ("size", "64x64x64"),
        ("steps", "many"), ("steps", 0), ("guidance", "high"), ("guidance", None or {}),
        ("strength", 2), ("strength", 0), ("strength", 0.0009), ("negative_prompt", 5), ("task", 5),
        ("source", {}), ("id", 1.5), ("id", "x" * 257), ("id", True),
        ("min_score", "high"), ("min_score", -0.1), ("min_score", 2),
        ("max_rerolls", 33), ("max_rerolls", -1),
        ("expand", "maybe"), ("expand", "yes"), ("expand", "true"), ("expand", 1), ("expand", 0.0),
        ("extra", "x" * 9000),
    ],
)  # fmt: skip
def test_wrong_values_are_refused_with_line_and_field(field: str, value: Any) -> None:
    rows = [{"prompt": "fine"}, {"prompt": "a", field: value}]
    error = refusal(lambda: drafts(opened(lines(*rows), query=[RICH])))
    assert (error.status, error.code, error.line) == (400, "invalid_row", 2)
    assert error.param == ("metadata" if field == "extra" else field)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"promt": "a", "seed": 1}, "the row has no prompt: is 'promt' meant for it?"),
        ({"Prompt": "a"}, "the row has no prompt: is 'Prompt' meant for it?"),
        ({"shelf": 4}, "the row has no prompt"),
    ],
)
def test_a_row_without_a_prompt_is_told_what_seems_to_be_one(
    row: dict[str, Any], told: str
) -> None:
    error = refusal(lambda: drafts(opened(lines({"prompt": "fine"}, row))))
    assert (error.message, error.line, error.param) == (told, 2, "prompt")


UNSUPPORTED = [
    ("size", "512x512"),
    ("steps", 4),
    ("guidance", 7.5),
    ("negative_prompt", "blurry"),
    ("strength", 0.4),
    ("strength", 0),
    ("task", "inpaint"),
    ("source", "file_1"),
    ("mask", "file_2"),
    ("min_score", 0.5),
    ("max_rerolls", 2),
    ("expand", True),
]


@pytest.mark.parametrize(("field", "value"), UNSUPPORTED)
def test_what_the_model_cannot_honour_is_refused(field: str, value: Any) -> None:
    error = refusal(lambda: drafts(opened(lines({"prompt": "a"}, {"prompt": "a", field: value}))))
    assert (error.status, error.code) == (400, "unsupported_parameter")
    assert (error.line, error.param) == (2, field)
    if field not in ("source", "mask"):
        error = refusal(lambda: document(prompts=["a"], **{field: value}))
        assert (error.code, error.line, error.param) == ("unsupported_parameter", None, field)


@pytest.mark.parametrize(("field", "value"), UNSUPPORTED)
def test_or_dropped_with_a_warning(field: str, value: Any) -> None:
    submission = opened(
        lines({"prompt": "a"}, {"prompt": "a", field: value}), query=[("on_unsupported", "warn")]
    )
    plain, dropped = drafts(submission)
    assert dropped[5:] == plain[5:]
    (warning,) = submission.head.warnings.first
    assert (warning.line, warning.field) == (2, field)
    assert warning.message


def test_ranges_of_the_model() -> None:
    for field, value in (("steps", 51), ("guidance", 20.5)):
        error = refusal(
            lambda f=field, v=value: drafts(opened(lines({"prompt": "a", f: v}), query=[RICH]))
        )
        assert (error.code, error.param) == ("unsupported_parameter", field)


def test_a_value_equal_to_what_the_model_does_anyway_is_no_error() -> None:
    draft = one(
        [], prompt="a", steps=1, guidance=0, strength=1, negative_prompt="", task="text2image"
    )
    assert (draft.steps, draft.guidance, draft.task) == (1, 0.0, "text2image")


def test_warnings_of_defaults_and_their_cap() -> None:
    submission = opened(
        lines(*[{"prompt": "a", "steps": 9}] * 250),
        query=[("on_unsupported", "warn"), ("size", "9x9"), ("size", "128x128")],
    )
    found = drafts(submission)
    assert {d.width for d in found} == {128}
    told = submission.head.warnings.to_json()
    assert told["total"] == 251
    assert len(told["data"]) == 100
    assert told["data"][0]["line"] is None
    assert told["data"][1] == {
        "line": 1, "field": "steps", "message": "model stub does not honour steps",
    }  # fmt: skip


def test_the_number_of_images_is_limited_before_they_are_made() -> None:
    limits = Limits(max_images=1000)
    error = refusal(lambda: drafts(opened(lines(*[{"prompt": "a", "n": 600}] * 2), limits=limits)))
    assert (error.status, error.line, error.param) == (413, 2, "n")
    seeds = list(range(2000))
    body = orjson.dumps({"prompts": ["a"], "seed": seeds, "size": ["64x64", "128x128"]})
    error = refusal(lambda: drafts(opened(body, "application/json", limits=limits)))
    assert error.status == 413


def test_metadata_too_deep_or_too_large() -> None:
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    error = refusal(lambda: drafts(opened(lines({"prompt": "a", "deep": deep}))))
    assert (error.line, error.param) == (1, "deep")
    assert one([], prompt="a", note="x" * 8000).metadata == {"note": "x" * 8000}


def test_metadata_given_twice_is_refused() -> None:
    row = {"prompt": "a", "style": "y", "metadata": {"style": "x"}}
    error = refusal(lambda: drafts(opened(lines({"prompt": "fine"}, row))))
    assert (error.code, error.line, error.param) == ("invalid_row", 2, "style")
    assert "given twice" in error.message
    assert one([], prompt="a", metadata={"metadata": 1}).metadata == {"metadata": 1}


def test_metadata_that_looks_like_a_field_is_told_once() -> None:
    rows = [{"prompt": "a", "step": 4, "guidance_scale": 2, "mood": "calm", "tags": "x"}] * 3
    submission = opened(lines(*rows))
    assert len(drafts(submission)) == 3
    told = [(w.line, w.field, w.message) for w in submission.head.warnings.first]
    assert told == [
        (1, "step", "kept as metadata: did you mean steps?"),
        (1, "guidance_scale", "kept as metadata: did you mean guidance?"),
    ]


def test_a_row_that_names_another_model_is_told_that_it_cannot() -> None:
    submission = opened(lines({"prompt": "a", "model": "stub"}, {"prompt": "b", "model": "rich"}))
    assert [d.metadata for d in drafts(submission)] == [{"model": "stub"}, {"model": "rich"}]
    (warning,) = submission.head.warnings.first
    assert (warning.line, warning.field) == (2, "model")


@pytest.mark.parametrize(
    ("row", "param", "message"),
    [
        ({"task": "img2img"}, "source", "img2img needs a source"),
        ({"source": "file_1"}, "source", "text2image starts from no source"),
        ({"task": "img2img", "source": "gone_1"}, "source", "source 'gone_1': there is no such"),
        ({"task": "img2img", "source": "text_1"}, "source", "no PNG, JPEG or WebP"),
        ({"task": "img2img", "source": "file_1", "mask": "file_2"}, "mask", "takes no mask"),
        ({"task": "inpaint", "source": "file_1"}, "mask", "needs a mask"),
        ({"task": "inpaint", "source": "file_1", "mask": "gone"}, "mask", "mask 'gone'"),
        ({"mask": "file_1"}, "mask", "starts from no mask"),
    ],
)
def test_pictures_that_do_not_fit_the_task_are_refused_with_line_and_field(
    row: dict[str, Any], param: str, message: str
) -> None:
    rows = [{"prompt": "fine"}, {"prompt": "a", **row}]
    error = refusal(lambda: drafts(opened(lines(*rows), query=[RICH])))
    assert (error.status, error.line, error.param) == (400, 2, param)
    assert message in error.message


def test_a_transparent_source_is_its_own_mask() -> None:
    own = one([RICH], prompt="a", task="inpaint", source="clear_1")
    assert (own.source, own.mask, own.strength) == (sha("clear_1"), sha("clear_1"), 1.0)
    given = one([RICH], prompt="a", task="inpaint", source="clear_1", mask="file_2")
    assert given.mask == sha("file_2")


def test_a_default_source_serves_all_rows_and_a_list_of_them_is_a_product() -> None:
    query = [RICH, ("task", "img2img"), ("source", "file_1")]
    own = {"prompt": "b", "source": "file_22"}
    found = drafts(opened(lines({"prompt": "a"}, own), query=query))
    assert [draft.source for draft in found] == [sha("file_1"), sha("file_22")]
    found = drafts(opened(lines({"prompt": "a"}), query=[*query, ("source", "file_22")]))
    assert [draft.source for draft in found] == [sha("file_1"), sha("file_22")]


def test_a_reference_is_looked_up_once() -> None:
    asked: list[str] = []

    def counted(reference: str) -> bytes:
        asked.append(reference)
        return read(reference)

    rows = [{"prompt": "a", "task": "inpaint", "source": "file_1", "mask": "file_22"}] * 5
    submission = opened(lines(*rows), query=[RICH])
    made = Rows(submission.head, submission.limits, Taken(counted, None), textual=False)
    assert len(list(made.drafts(submission.rows))) == 5
    assert asked == ["file_1", "file_22"]


def varied(
    *rows: dict[str, Any], query: list[tuple[str, str]], kind: str = "", body: bytes = b""
) -> list[Draft]:
    """The drafts of variations; the prompt of an image is "what " and its reference."""

    def prompt_of(reference: str) -> str | None:
        if reference.startswith("img_lost"):
            raise errors.NotFound("there is no such job")
        if reference.startswith("img_long"):
            return "x" * 32_001
        return f"what {reference}" if reference.startswith("img_") else None

    given = opened(body or lines(*rows), kind or "application/x-ndjson", [RICH, *query])
    made = Rows(given.head, given.limits, Taken(read, None, prompt_of), textual=bool(kind))
    return list(made.drafts(given.rows))


def test_a_variation_without_a_prompt_has_that_of_its_image() -> None:
    one, other, own = varied(
        {"task": "variation", "source": "img_a_0", "seed": 5, "note": "kept"},
        {"task": "variation", "source": "img_bb_1", "size": "128x128"},
        {"task": "variation", "source": "img_a_0", "prompt": "my own"},
        query=[],
    )
    assert (one.prompt, one.source, one.seed) == ("what img_a_0", sha("img_a_0"), 5)
    assert (one.width, one.metadata) == (64, {"note": "kept"})
    assert (other.prompt, other.source, other.width) == ("what img_bb_1", sha("img_bb_1"), 128)
    assert own.prompt == "my own"
    query = [("task", "variation"), ("source", "img_a_0")]
    found = varied(
        {"seed": 1}, {}, {"source": "img_c_2"}, {"prompt": "b"}, {"id": "k"}, query=query
    )
    told = ["what img_a_0", "what img_a_0", "what img_c_2", "b", "what img_a_0"]
    assert [draft.prompt for draft in found] == told
    csv = b"prompt,source\n,img_a_0\nb,img_a_0\n"
    found = varied(kind="text/csv", body=csv, query=[("task", "variation")])
    assert [draft.prompt for draft in found] == ["what img_a_0", "b"]


@pytest.mark.parametrize(
    ("row", "query", "told", "param"),
    [
        ({"task": "variation", "source": "file_1"}, {}, "where that is an earlier image", "prompt"),
        ({"task": "variation", "source": "img_lost_0"}, {}, "no such job", "source"),
        ({"task": "variation", "source": "img_a_0", "prompt": ""}, {}, "is empty", "prompt"),
        ({"task": "variation", "source": "img_long_0"}, {}, "is longer than", "prompt"),
        ({"task": "variation"}, {}, "no prompt", "prompt"),
        ({"task": "img2img", "source": "img_a_0"}, {}, "no prompt", "prompt"),
        ({"source": "img_a_0"}, {"task": ["variation", "img2img"]}, "no prompt", "prompt"),
        ({"task": "variation"}, {"source": ["img_a_0", "img_b_0"]}, "no prompt", "prompt"),
    ],
)
def test_other_rows_still_need_a_prompt(
    row: dict[str, Any], query: dict[str, Any], told: str, param: str
) -> None:
    pairs = [(name, value) for name, values in query.items() for value in values]
    fine = {"prompt": "fine", "task": "img2img", "source": "file_1"}
    error = refusal(lambda: varied(fine, row, query=pairs))
    assert (error.line, error.param) == (2, param) and told in error.message


def test_rerolls_need_a_score_to_reach() -> None:
    error = refusal(lambda: drafts(opened(lines({"prompt": "a", "max_rerolls": 2}), query=[RICH])))
    assert (error.line, error.param) == (1, "min_score")
    query = [RICH, ("min_score", "0.5"), ("max_rerolls", "2"), ("expand", "true")]
    plain, own = drafts(
        opened(lines({"prompt": "a"}, {"prompt": "b", "min_score": 1}), query=query)
    )
    assert (plain.min_score, plain.max_rerolls, plain.expand) == (0.5, 2, True)
    assert (own.min_score, own.max_rerolls) == (1.0, 2)


USUAL = st.fixed_dictionaries(
    {},
    optional={
        "prompt": st.sampled_from(["a", "  b ", "", " ", 7, None, "x" * 50_000]),
        "seed": st.sampled_from([0, 5, 2**53 - 1, 2**53, -1, 4.0, True, "6", None]),
        "id": st.sampled_from(["k", 3, "", None, "i" * 257, "n\0l"]),
        "size": st.sampled_from(["128x128", None]),
        "mood": st.sampled_from(["calm", None]),
    },
)
SEED = ("seed", "9")
HEADS = [[SEED], [SEED, ("n", "2")], [SEED, ("seed", "2")], [SEED, ("size", "128x128")]]


@given(rows=st.lists(USUAL, min_size=1, max_size=4), query=st.sampled_from(HEADS))
def test_a_usual_row_becomes_what_it_becomes_the_long_way(
    rows: list[dict[str, Any]], query: list[tuple[str, str]]
) -> None:
    def long(made: Rows) -> Iterator[Draft]:
        return (draft for row in submission.rows for draft in made.of(row))

    def short(made: Rows) -> Iterator[Draft]:
        return made.drafts(submission.rows)

    ways = []
    for way in (short, long):
        submission = opened(
            lines({"prompt": "first"}, *rows), query=query, limits=Limits(max_rows=4)
        )
        made = Rows(submission.head, submission.limits, Taken(read, None), textual=False)
        found: list[Any] = []
        try:
            found.extend(way(made))
        except errors.Error as error:
            found.append((error.line, error.param, str(error)))
        ways.append((found, made.rows, made.images))
    (found, *seen), (wanted, *right) = ways
    assert found == wanted
    assert not isinstance(found[-1], Draft) or seen == right


SENT_BACK: list[dict[str, Any]] = [
    {"metadata": {"source": "laion", "n": 4, "id": "zz", "mood": "calm"}},
    {"metadata": {"metadata": {"seed": 5}}},
    {"metadata": {"metadata": "x", "prompt": "old"}, "style": "oil"},
    {"expand": True, "min_score": 0.5, "max_rerolls": 3, "id": "k", "n": 2},
    {"task": "img2img", "source": "file_1", "strength": 0.3, "negative_prompt": "b", "steps": 3},
    {"task": "inpaint", "source": "clear_1", "guidance": 2},
]


@pytest.mark.parametrize("row", SENT_BACK)
def test_a_row_that_is_sent_back_makes_the_same_image(row: dict[str, Any]) -> None:
    before = drafts(opened(lines({"prompt": "a", **row}), query=[RICH]))
    failed = [records.Image(1, draft.item(), jobs.ImageState.FAILED) for draft in before]
    body = b"".join(sent_back.line_of(image, "job_1") for image in failed)
    after = drafts(opened(body, query=[RICH]))

    def made(draft: Draft) -> Draft:  # what it started from is named by another reference
        return draft._replace(index=0, row=0, sample=0, source=None, mask=None)

    assert list(map(made, after)) == list(map(made, before))
