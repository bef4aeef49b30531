"""The report of a chaos run adds up, whatever did not happen in it."""

from __future__ import annotations

import json

from tests.chaos.invariants import Violation
from tests.chaos.report import Totals, write


def test_two_stacks_add_up_to_one_line_of_json() -> None:
    first, second = Totals(7, stacks=["embedded"]), Totals(7, stacks=["fleet"])
    first.images, first.rendered = 100, 132
    first.recovery["worker.kill"] += [1.0, 3.0]
    first.wasted["worker.kill"] = 32
    second.images = second.rendered = 50
    second.recovery["worker.kill"] += [2.0]
    second.violations.append(Violation("lost", "job_x", "image 3 has no row"))
    first.add(second)
    text = write(first)
    found = json.loads(text.splitlines()[-1])
    assert (found["images"], found["faults"], found["lost"], found["twice"]) == (150, 3, 1, 0)
    assert (found["wasted"], found["wasted_percent"]) == (32, 21.33)
    assert found["recovery"]["worker.kill"] == {"faults": 3, "median": 2.0, "p99": 3.0}
    assert "image 3 has no row" in text


def test_a_run_without_a_fault_is_reported() -> None:
    totals = Totals(7, stacks=["embedded"])
    totals.wasted["worker.kill"] = 0
    assert json.loads(write(totals).splitlines()[-1])["recovery"] == {}
