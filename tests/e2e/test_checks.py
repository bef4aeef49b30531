"""Checks, cancelling inside a long render, and recycling, on a farm of real processes."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Stack

pytestmark = [pytest.mark.servers, pytest.mark.timeout(170)]


def test_a_prompt_on_the_block_list_fails_alone_with_its_verdict(embedded: Stack) -> None:
    farm = embedded.make()
    listed = farm.folder / "blocked.txt"
    listed.write_text("forbidden word\n")
    farm.env["PROMPTMILL_PROMPT_BLOCKLIST"] = str(listed)
    farm.start()
    prompts = [f"fine {i}" for i in range(40)]
    prompts[17] = "a Forbidden  Word here"
    job = farm.submit(prompts)["id"]
    farm.wait(job)
    assert farm.check(job) == {"done": 39, "failed": 1}
    [failed] = farm.images(job, state="failed")
    assert failed["index"] == 17
    assert failed["error"]["code"] == "rejected"
    assert "line 1" in failed["error"]["message"]


def test_a_worker_whose_memory_grows_ends_with_nothing_lost(embedded: Stack) -> None:
    farm = embedded.make(PROMPTMILL_RECYCLE_BYTES="1").start()
    job = farm.submit([{"prompt": f"p {i}", "size": "256x256"} for i in range(2400)])["id"]
    assert farm.workers[0].popen.wait(90) == 0
    assert "memory has grown" in farm.workers[0].text()
    farm.add_worker(PROMPTMILL_RECYCLE_BYTES="0")
    farm.wait(job, seconds=90)
    assert farm.check(job) == {"done": 2400}
    assert not farm.incidents()
