"""What the dashboard repeats of the core, since a browser cannot import it, is the same there."""

from __future__ import annotations

import re
from pathlib import Path

from promptmill import jobs

SNIPPETS = Path(__file__).parents[2] / "api" / "dashboard" / "snippets.js"


def test_usual_strengths() -> None:
    found = re.search(r"STRENGTHS = \{ (.*?) \}", SNIPPETS.read_text())
    assert found is not None
    pairs = (pair.split(": ") for pair in found[1].split(", "))
    assert {task: float(value) for task, value in pairs} == jobs.STRENGTHS
