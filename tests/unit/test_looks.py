"""Answers that were given a moment ago."""

from __future__ import annotations

import time

from api import looks
from api.looks import Looks


def test_an_answer_is_given_again_for_a_tenth_of_a_second_to_the_same_tenant() -> None:
    given = Looks()
    given.keep(1, "job_a", b"{}", asked=time.monotonic())
    assert given.recent(1, "job_a") == b"{}"
    assert given.recent(2, "job_a") is None
    given.keep(1, "job_a", b"[]", asked=time.monotonic() - looks.FRESH)
    assert given.recent(1, "job_a") == b"{}", "a slower look, begun before, says nothing new"


def test_an_old_answer_is_not_given() -> None:
    given = Looks()
    given.keep(1, "job_a", b"{}", asked=time.monotonic() - looks.FRESH)
    assert given.recent(1, "job_a") is None


def test_what_was_looked_up_before_a_change_is_told_to_nobody() -> None:
    given = Looks()
    asked = time.monotonic()
    given.forget(1, "job_a")
    given.keep(1, "job_a", b"{}", asked=asked)
    assert given.recent(1, "job_a") is None
    given.keep(1, "job_a", b"[]", asked=time.monotonic())
    assert given.recent(1, "job_a") == b"[]"


def test_it_remembers_no_more_than_it_may() -> None:
    given = Looks()
    for number in range(looks.REMEMBERED + 2):
        given.keep(1, f"job_{number}", b"{}", asked=time.monotonic())
    assert given.recent(1, "job_0") is None
    assert given.recent(1, f"job_{looks.REMEMBERED + 1}") == b"{}"
