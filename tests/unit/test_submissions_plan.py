"""The dry run: counts, duplicates, buckets, time, first rows, problems."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from api import submissions
from api.errors import Timeout
from api.submissions import Limits
from api.submissions.plan import Duplicates
from promptmill import errors
from tests.unit.submissions_kit import document, drafts, lines, opened, plan, refusal


def test_a_plan() -> None:
    rows = [{"prompt": "a", "seed": 1, "id": str(i)} for i in range(3)]
    rows += [{"prompt": "b", "n": 4, "size": "128x128"}]
    made = plan(
        opened(lines(*rows), query=[("seed", "9")]),
        costs={"task=text2image,width=64,height=64": 2.0},
        workers=4,
    )
    told = made.to_json()
    assert (told["valid"], told["complete"], told["seed"]) == (True, True, 9)
    assert (told["rows"], told["images"]) == (4, 7)
    assert (told["duplicates"], told["duplicates_exact"]) == (2, True)
    assert told["buckets"] == [
        {"bucket": "task=text2image,width=64,height=64", "images": 3, "seconds": 6.0},
        {"bucket": "task=text2image,width=128,height=128", "images": 4, "seconds": 0.04},
    ]
    assert told["generator_seconds"] == pytest.approx(6.04)
    assert told["eta_seconds"] == pytest.approx(6.04 / 4)
    assert 4 * 128 * 128 < told["bytes"] < 4 * 128 * 128 * 4
    assert [f["prompt"] for f in told["first"]] == ["a"] * 3 + ["b"] * 4
    assert told["first"][3]["size"] == "128x128"


def test_no_worker_no_eta() -> None:
    assert plan(document(prompts=["a"]), costs={}, workers=0).eta_seconds is None


def test_problems_are_listed_with_their_lines() -> None:
    rows = [{"prompt": "a"}, {"prompt": ""}, {"prompt": "b", "steps": 9}, {"prompt": "c"}]
    told = plan(opened(lines(*rows)), costs={}, workers=1).to_json()
    assert (told["valid"], told["complete"], told["images"]) == (False, True, 2)
    assert [(p["line"], p["field"]) for p in told["problems"]["data"]] == [
        (2, "prompt"),
        (3, "steps"),
    ]
    told = plan(opened(lines(*rows[:1]) + b"{"), costs={}, workers=1).to_json()
    assert (told["valid"], told["complete"], told["images"]) == (False, False, 1)
    assert told["problems"]["data"][0]["line"] == 2


def test_warnings_and_limits() -> None:
    body = lines({"prompt": "a", "steps": 9}, {"prompt": "b"})
    told = plan(opened(body, query=[("on_unsupported", "warn")]), costs={}, workers=1).to_json()
    assert told["valid"]
    assert told["warnings"]["data"] == [
        {"line": 1, "field": "steps", "message": "model stub does not honour steps"}
    ]
    made = plan(opened(body[-15:] * 5, limits=Limits(max_rows=3)), costs={}, workers=1)
    assert (made.images, made.complete, made.problems.total) == (3, False, 1)


def test_too_many_buckets_is_a_problem() -> None:
    submission = document(model="rich", prompts=["a"], steps=list(range(1, 51)), guidance=[1, 2])
    told = plan(submission, costs={}, workers=1).to_json()
    assert not told["valid"]
    assert told["images"] == 100
    assert "64" in told["problems"]["data"][0]["message"]
    assert sum(b["images"] for b in told["buckets"]) == 100
    assert len(told["buckets"]) <= 66


def test_more_images_than_the_tenant_may_have_are_a_problem() -> None:
    def told(max_queued: int) -> dict[str, Any]:
        made = opened(lines({"prompt": "a", "n": 4}))
        return plan(made, costs={}, workers=1, max_queued=max_queued).to_json()

    assert told(4)["valid"]
    assert not told(3)["valid"]
    assert told(3)["problems"]["data"] == [
        {"line": None, "field": "n", "message": "4 images are more than this tenant's limit of 3"}
    ]


def test_an_empty_body_is_no_valid_plan() -> None:
    assert not plan(opened(b""), costs={}, workers=1).to_json()["valid"]


def test_errors_without_a_line_are_raised() -> None:
    made = document(template="__x__")
    assert refusal(lambda: plan(made, costs={}, workers=1)).param == "wildcards"


def test_an_outage_is_no_problem_of_a_row() -> None:
    def away(_: str) -> bytes:
        raise errors.StorageDown

    def slow() -> Iterator[bytes]:
        yield lines({"prompt": "a"})
        raise Timeout

    row = {"prompt": "a", "task": "img2img", "source": "file_1"}
    made = opened(lines(row), query=[("model", "rich")])
    error = refusal(lambda: plan(made, costs={}, workers=1, read=away))
    assert (error.status, error.line) == (503, None)
    assert refusal(lambda: plan(opened(slow()), costs={}, workers=1)).status == 408


def test_duplicates_are_exact_up_to_the_capacity_and_close_beyond() -> None:
    def count(distinct: int, times: int, capacity: int) -> Duplicates:
        counter = Duplicates(capacity)
        rows = [{"prompt": f"p{i}", "seed": 1} for i in range(distinct)]
        made = drafts(opened(lines(*rows)))
        for _ in range(times):
            for draft in made:
                counter.add(draft)
        return counter

    exact = count(1000, 3, 3000)
    assert exact.exact
    assert exact.count() == 2000
    rough = count(4000, 3, 2000)
    assert not rough.exact
    assert len(rough.kept) <= 2000
    assert rough.count() == pytest.approx(8000, rel=0.2)
    same = count(1, 5000, 100)
    assert same.count() == 4999
    assert len(same.kept) <= 100


def test_derived_seeds_are_no_duplicates() -> None:
    made = plan(document(prompts=["a"] * 5), costs={}, workers=1)
    assert made.duplicates == 0
    made = plan(document(prompts=["a"] * 5, seed=[3]), costs={}, workers=1)
    assert made.duplicates == 4
    assert isinstance(made, submissions.Plan)
