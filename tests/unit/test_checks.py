"""The checks of prompts: what they refuse, and that they say why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from promptmill import errors
from promptmill.jobs import Item
from promptmill.settings import Settings
from worker import checks, memory
from worker.blocklist import Blocklist

ITEM = Item(0, 0, 0, "a red heart", 1, 64, 64)


@pytest.mark.parametrize(
    ("prompt", "line"),
    [
        ("a red heart", None),
        ("the HEART of Gold", 4),
        ("a ｇｏｌｄ  heart of   gold", 4),
        ("hearts of golden", None),
        ("call 555-1234 now", 5),
        ("skunk", None),
    ],
)
def test_words_match_whole_and_folded_and_patterns_anywhere(prompt: str, line: int | None) -> None:
    listed = Blocklist(["# comment", "", "kun", "heart of gold", r"/\d{3}-\d{4}/"])
    verdict = listed.verdict(replace(ITEM, prompt=prompt))
    assert (verdict is None) == (line is None)
    assert (
        line is None
        or str(verdict) == f"the prompt is refused by line {line} of this farm's block-list"
    )


def test_the_negative_prompt_is_checked_too() -> None:
    verdict = Blocklist(["blood"]).verdict(replace(ITEM, negative_prompt="blood"))
    assert verdict is not None
    assert verdict.startswith("the negative_prompt")


def test_a_pattern_that_is_none_is_named_by_its_line(tmp_path: Path) -> None:
    listed = tmp_path / "blocked.txt"
    listed.write_text("fine\n/(/\n")
    with pytest.raises(errors.SettingInvalid, match=r"blocked\.txt, line 2"):
        checks.from_settings(Settings(prompt_blocklist=str(listed)))
    with pytest.raises(errors.SettingInvalid, match="cannot be read"):
        checks.from_settings(Settings(prompt_blocklist=str(tmp_path / "absent")))


def test_memory_has_grown_only_once_the_worker_has_settled() -> None:
    growth = memory.Growth(100)
    assert not growth.excessive(batches=10, now=10**9)
    assert not growth.excessive(batches=50, now=1000)
    assert not growth.excessive(batches=51, now=1100)
    assert growth.excessive(batches=52, now=1101)
    assert not memory.Growth(0).excessive(batches=52, now=10**12)
    assert memory.held() > 10**6
