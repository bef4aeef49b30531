"""The head: parameters from a query or a document, and the refusal of all others."""

from __future__ import annotations

import time
from typing import Any

import pytest

from promptmill import jobs, records
from tests.unit.submissions_kit import document, drafts, lines, opened, refusal

ROW = lines({"prompt": "a"})


def test_everything_in_a_query() -> None:
    query = [
        ("model", "rich"), ("name", "night run"), ("priority", "bulk"), ("seed", "5"),
        ("size", "128x128"), ("steps", "4"), ("guidance", "2.5"), ("negative", "blurry"),
        ("n", "3"), ("packing", "tar"), ("format", "webp"), ("prefix", "team/a/run1"),
        ("map", "prompt=caption"), ("on_unsupported", "warn"), ("dry_run", "true"),
        ("metadata", '{"team": "x"}'), ("webhook", "https://example.com/hook"),
        ("window", "24h"), ("fingerprint", "abc"),
    ]  # fmt: skip
    submission = opened(lines({"caption": "a"}), query=query, key="key-1")
    head, job = submission.head, submission.head.job
    assert job.output == records.Output("webp", "tar", "team/a/run1")
    assert (job.model, job.name, job.priority) == ("rich", "night run", jobs.Priority.BULK)
    assert (job.seed, job.metadata) == (5, {"team": "x"})
    assert (job.webhook, job.fingerprint) == ("https://example.com/hook", "abc")
    assert job.expires_at == pytest.approx(time.time() + 86400, abs=60)
    assert (head.idempotency_key, head.dry_run, head.warn) == ("key-1", True, True)
    found = drafts(submission)
    assert [(d.sample, d.width, d.steps, d.guidance, d.negative_prompt) for d in found] == [
        (k, 128, 4, 2.5, "blurry") for k in range(3)
    ]


def test_a_document_says_the_same() -> None:
    fields: dict[str, Any] = {
        "model": "rich",
        "prompts": ["a"],
        "priority": "interactive",
        "seed": 5,
        "defaults": {"size": "128x128", "n": 2},
        "output": {"format": "jpeg", "packing": "tar", "prefix": "shared"},
        "metadata": {"team": "x"},
        "expires_at": time.time() + 60,
    }
    job = document(**fields).head.job
    assert job.output == records.Output("jpeg", "tar", "shared")
    assert job.priority is jobs.Priority.INTERACTIVE
    assert job.defaults == {"seed": 5, "size": "128x128", "n": 2}
    assert len(drafts(document(**fields))) == 2


def test_what_is_left_out() -> None:
    job = opened(ROW).head.job
    assert (job.model, job.priority, job.output) == ("stub", "normal", records.Output())
    assert 0 <= job.seed < 2**53
    assert opened(ROW).head.job.seed != job.seed


def test_an_upload_sent_again_under_its_key_has_the_same_seed() -> None:
    assert opened(ROW, key="k").head.job.seed == opened(ROW, key="k").head.job.seed
    assert opened(ROW, key="k").head.job.seed != opened(ROW, key="l").head.job.seed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("colour", "red"), ("prompt", "a"), ("mask", "file_1"), ("output", "x"),
        ("priority", "urgent"), ("priority", ""), ("seed", "x"), ("seed", "-1"), ("n", "0"), ("n", "x"),
        ("size", "big"), ("size", ""), ("steps", "x"), ("packing", "zip"), ("format", "gif"),
        ("prefix", "../x"), ("prefix", "team/b"), ("prefix", "team/a/../b"), ("prefix", "team/ab"),
        ("prefix", "/shared"), ("prefix", "shared/"), ("prefix", "shared/.x"), ("prefix", "shared/..x/y"), ("prefix", "shared/a\nb"),
        ("map", "prompt"), ("map", "colour=x"), ("map", "prompt=a,seed=a"), ("map", ""),
        ("on_unsupported", "drop"), ("dry_run", "maybe"), ("metadata", "x"), ("metadata", "[]"), ("metadata", '{"a": "\\u0000"}'),
        ("metadata", '{"a":"' + "x" * 9000 + '"}'),
        ("webhook", "ftp://x"), ("webhook", "https://"), ("webhook", "http://[bad"), ("webhook", "http://a.com/\r\nx-y: z"), ("webhook", "http://a.com/ b"), ("webhook", "http://a.com:99999/"), ("webhook", "http://a.com\\@b.com/"),
        ("expires_at", "5"), ("expires_at", "x"), ("window", "soon"), ("window", "0h"),
        ("name", "x" * 201), ("idempotency_key", "a\nb"),
    ],
)  # fmt: skip
def test_bad_parameters_are_refused_by_name(name: str, value: str) -> None:
    error = refusal(lambda: opened(ROW, query=[(name, value)]))
    assert (error.status, error.line) == (400, None)
    assert error.param == name


def test_a_boolean_may_be_written_as_python_does() -> None:
    assert opened(ROW, query=[("dry_run", "True")]).head.dry_run
    assert not opened(ROW, query=[("dry_run", "False")]).head.dry_run


def test_an_unknown_model_is_a_404() -> None:
    assert refusal(lambda: opened(ROW, query=[("model", "none")])).code == "model_not_found"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"colour": 1}, "colour"),
        ({"defaults": {"colour": 1}}, "colour"),
        ({"defaults": []}, "defaults"),
        ({"output": {"size": "64x64"}}, "size"),
        ({"size": "64x64", "defaults": {"size": "64x64"}}, "size"),
        ({"negative": "", "negative_prompt": ""}, "negative_prompt"),
        ({"seed": "5"}, "seed"),
        ({"seed": []}, "seed"),
        ({"n": [1, 2]}, "n"),
        ({"name": 5}, "name"),
        ({"model": {}}, "model"),
        ({"priority": []}, "priority"),
        ({"dry_run": {}}, "dry_run"),
        ({"dry_run": "true"}, "dry_run"),
        ({"dry_run": 1}, "dry_run"),
        ({"expand": "yes"}, "expand"),
        ({"map": {"prompt": "x"}}, "map"),
        ({"map": 5}, "map"),
        ({"metadata": {"x": "a\0"}}, "metadata"),
        ({"window": "1h", "expires_at": 9e9}, "window"),
        ({"webhook": 5}, "webhook"),
    ],
)
def test_bad_fields_of_a_document(fields: dict[str, Any], param: str) -> None:
    error = refusal(lambda: document(prompts=["a"], **fields))
    assert (error.status, error.param) == (400, param)


def test_the_query_of_a_document_may_only_ask_for_a_dry_run() -> None:
    body = b'{"prompts":["a"]}'
    assert opened(body, "application/json", [("dry_run", "1")]).head.dry_run
    error = refusal(lambda: opened(body, "application/json", [("dry_run", "maybe")]))
    assert error.param == "dry_run"
    assert refusal(lambda: opened(body, "application/json", [("n", "2")])).param == "n"
