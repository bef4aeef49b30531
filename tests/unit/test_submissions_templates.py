"""Templates: products of variables, the syntax of dynamicprompts, seeded draws, and what
an evil one may not do."""

from __future__ import annotations

import contextlib
import itertools
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.submissions import grammar, templates
from promptmill import errors
from tests.unit.submissions_kit import document, drafts, refusal


def expand(seed: int = 1, most: int | None = None, **fields: Any) -> list[dict[str, Any]]:
    rows = templates.rows(templates.parse(fields), seed=seed)
    return [fields for _, fields in itertools.islice(rows, most)]


def prompts(**fields: Any) -> list[str]:
    return [row["prompt"] for row in expand(**fields)]


@pytest.mark.parametrize(
    "template", ["a {color} {animal}", "a {{color}} {{ animal }}", "a ${color} ${animal}"]
)
def test_variables_make_the_product(template: str) -> None:
    found = expand(
        template=template, variables={"color": ["red", "blue"], "animal": ["cat", "dog"]}
    )
    assert [row["prompt"] for row in found] == [
        "a red cat",
        "a red dog",
        "a blue cat",
        "a blue dog",
    ]
    assert found[1]["variables"] == {"color": "red", "animal": "dog"}


def test_the_order_of_the_variables_is_that_of_the_request() -> None:
    found = prompts(template="{a}{b}", variables={"b": [1, 2], "a": ["x", "y"]})
    assert found == ["x1", "y1", "x2", "y2"]


def test_a_variable_is_the_same_wherever_it_stands() -> None:
    assert prompts(template="{c} on {c} {s|t}", variables={"c": ["a", "b"]}) == [
        "a on a s", "a on a t", "b on b s", "b on b t",
    ]  # fmt: skip


def test_variants_and_wildcards_are_expanded_and_told() -> None:
    found = expand(
        template="{c} cat, {sunny|rainy}, __style__",
        variables={"c": ["red"]},
        wildcards={"style": ["oil", "{thin|thick} ink"]},
    )
    assert [row["prompt"] for row in found] == [
        f"red cat, {w}, {s}" for w in ("sunny", "rainy") for s in ("oil", "thin ink", "thick ink")
    ]
    assert found[4]["variables"] == {"c": "red", "choice_1": "rainy", "style": "thin ink"}


def test_a_variable_may_be_a_wildcard() -> None:
    wildcards = {"animals": ["fox", "owl"]}
    found = expand(template="a {pet}", variables={"pet": "__animals__"}, wildcards=wildcards)
    assert [row["variables"] for row in found] == [{"pet": "fox"}, {"pet": "owl"}]


def test_text_that_looks_like_syntax_stays_as_it_is() -> None:
    text = "50% off, $5, #1, http://x/y /* z */, (word:1.2)"
    assert prompts(template=text) == [text]
    assert prompts(template=text + " {a|b #2}") == [text + " a", text + " b #2"]
    values = ["{x|y}", "__z__", "$a", "#"]
    assert prompts(template="{v}{1|1}", variables={"v": values}) == [f"{v}1" for v in values]


def test_random_draws_depend_on_seed_and_row_alone() -> None:
    fields: dict[str, Any] = {
        "template": "{c} {a|b|c|d} __w__",
        "variables": {"c": [str(i) for i in range(9)]},
        "wildcards": {"w": [f"w{i}" for i in range(9)]},
        "sampling": "random",
    }
    long, short = expand(count=50, **fields), expand(count=10, **fields)
    assert long[:10] == short
    assert len({row["prompt"] for row in long}) > 30
    assert expand(seed=2, count=50, **fields) != long
    row = long[7]
    chosen = row["variables"]
    assert row["prompt"] == f"{chosen['c']} {chosen['choice_1']} {chosen['w']}"


def test_a_count_takes_the_first_of_a_product_and_nothing_more_is_made() -> None:
    values = [str(i) for i in range(100)]
    variables = dict.fromkeys("abcdef", values)  # 10^12 prompts
    started = time.monotonic()
    found = prompts(template="{a}{b}{c}{d}{e}{f}", variables=variables, count=3)
    assert found == ["000000", "000001", "000002"]
    assert time.monotonic() - started < 2


def test_rows_keep_their_choices_and_take_defaults() -> None:
    submission = document(
        template="a {c} cat", variables={"c": ["red", "blue"]}, size=["64x64", "128x128"], n=2
    )
    found = drafts(submission)
    assert len(found) == 8
    assert (found[5].prompt, found[5].row, found[5].sample) == ("a blue cat", 1, 1)
    assert found[5].metadata == {"variables": {"c": "blue"}}
    recipe = submission.head.job.recipe
    assert recipe == {"template": "a {c} cat", "variables": {"c": ["red", "blue"]}}


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"template": ""}, "template", "string"),
        ({"template": 5}, "template", "string"),
        ({"template": "x" * 16_001}, "template", "over"),
        ({"template": "a {colour}"}, "template", "colour"),
        ({"template": "a ${colour}"}, "template", "colour"),
        ({"template": "a __colour__"}, "wildcards", "colour"),
        ({"template": "a {b"}, "template", "expanded"),
        ({"template": "{@a|b}"}, "template", "not offered"),
        ({"template": "{!a|b}", "sampling": "random", "count": 1}, "template", "not offered"),
        ({"template": "__a__", "wildcards": {"a": ["__a__"]}}, "template", "recursion"),
        ({"template": "a", "variables": {"c": ["x"]}}, "variables", "occur"),
        ({"template": "{c}", "variables": {"c": []}}, "variables", "list"),
        ({"template": "{c}", "variables": {"c": "red"}}, "variables", "list"),
        ({"template": "{c}", "variables": {"c": [["x"]]}}, "variables", "strings"),
        ({"template": "{c}", "variables": []}, "variables", "object"),
        ({"template": "{c}", "variables": {"c d": ["x"]}}, "variables", "no name"),
        ({"template": "a", "wildcards": {"../etc/passwd": ["x"]}}, "wildcards", "no name"),
        ({"template": "a", "sampling": "best"}, "sampling", "one of"),
        ({"template": "a", "sampling": "random"}, "count", "needs"),
        ({"template": "a", "count": 0}, "count", "positive"),
        ({"template": "a", "count": "5"}, "count", "positive"),
    ],
)
def test_bad_templates_are_refused(fields: dict[str, Any], param: str, says: str) -> None:
    error = refusal(lambda: expand(**fields))
    assert (error.status, error.param) == (400, param)
    assert says in error.message


def test_wildcards_never_come_from_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.txt").write_text("the secret\n")
    monkeypatch.chdir(tmp_path)
    for name in ("secret", "secret.txt", "*", "**/*", f"{tmp_path}/secret", "../secret"):
        assert refusal(lambda name=name: expand(template=f"__{name}__")).param == "wildcards"


def test_an_expansion_that_takes_for_ever_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "PATIENCE", 0.3)
    doubling = {f"w{i}": [f"__w{i + 1}__ __w{i + 1}__"] for i in range(60)} | {"w60": ["x"]}
    dead_end = "{12$$" + "|".join(f"{{a|b}}{{{i}|{i}}}" for i in range(30)) + "}"
    for fields in (
        {"template": "__w0__", "wildcards": doubling},
        {"template": "__w0__", "wildcards": doubling, "sampling": "random", "count": 1},
        {"template": "{13$$" + "|".join("{a|b|c}" + "__x__" * i for i in range(30)) + "}"},
        {"template": dead_end, "count": 10},
    ):
        started = time.monotonic()
        with contextlib.suppress(errors.BadRequest):
            expand(most=10, **{"wildcards": {"x": [""]}, **fields})
        assert time.monotonic() - started < 5
    for sampling in templates.SAMPLING:
        fields = {"template": "__w0__", "wildcards": doubling, "sampling": sampling, "count": 1}
        assert "too long" in refusal(lambda fields=fields: expand(**fields)).message


def test_slow_consumers_do_not_use_up_the_time_of_a_template() -> None:
    deadline = grammar.Deadline(0.05)
    time.sleep(0.06)
    deadline.earn(0.06)
    deadline.check()
    time.sleep(0.07)
    with pytest.raises(errors.BadRequest):
        deadline.check()


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(alphabet="ab{}|$%_#/ :!~@(=)1-", max_size=30),
    sampling=st.sampled_from(["combinatorial", "random"]),
)
def test_any_template_gives_prompts_or_an_error(text: str, sampling: str) -> None:
    try:
        found = expand(
            template=text, variables={"a": ["1", "2"]}, wildcards={"b": ["3", "{4|5}"]},
            sampling=sampling, count=20, most=20,
        )  # fmt: skip
    except errors.Error as error:
        assert error.status == 400
    else:
        assert all(isinstance(row["prompt"], str) for row in found)


@pytest.mark.parametrize(
    ("document", "least"),
    [
        ({"template": "{a|b|c|d|e|f|g|h|i|j}" * 9}, 10**9),
        ({"template": "a {c} {x|y} __w__", "variables": {"c": ["r", "g"]},
          "wildcards": {"w": ["1", "2", "3"]}}, 12),
        ({"template": "{a|{b|c}} x"}, 3),
        ({"template": "{2$$a|b|c}"}, 1),
        ({"template": "{x}", "variables": {"x": [str(i) for i in range(1000)]}}, 1000),
        ({"template": "{a|b}", "sampling": "random", "count": 5}, 0),
    ],
)  # fmt: skip
def test_the_least_number_of_prompts_is_known_before_they_are_made(
    document: dict[str, object], least: int
) -> None:
    assert templates.at_least(templates.parse(document)) == least
