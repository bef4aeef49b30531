"""The report of a chaos run adds up, whatever did not happen in it."""

from __future__ import annotations

import json

from tests.chaos.invariants import Violation
from tests.chaos.report import Totals, write


def test_two_stacks_add_up_to_one_line_of_json() -> None:
    first, second = Totals(7, stacks=["embedded"]), Totals(7, stacks=["fleet"])
    first.images, first.rendered = 100, 132
    first.recovery["worker.kill"] += [1.0, 3.0]
    first.wasted["worker.kill"], first.alone["worker.kill"] = 32, 1
    second.images = second.rendered = 50
    second.recovery["worker.kill"] += [2.0]
    second.violations.append(Violation("lost", "job_x", "image 3 has no row"))
    first.add(second)
    text = write(first)
    found = json.loads(text.splitlines()[-1])
    assert (found["images"], found["faults"], found["lost"], found["twice"]) == (150, 3, 1, 0)
    assert (found["wasted"], found["wasted_percent"]) == (32, 21.33)
    assert found["recovery"]["worker.kill"] == {"faults": 3, "median": 2.0, "p99": 3.0}
    assert found["wasted_per_fault"] == {"worker.kill": 32.0}, "not among those of the mixed part"
    assert "image 3 has no row" in text


def test_a_run_without_a_fault_is_reported() -> None:
    totals = Totals(7, stacks=["embedded"])
    totals.wasted["worker.kill"] = 0
    assert json.loads(write(totals).splitlines()[-1])["recovery"] == {}


def test_a_whole_run_must_be_long_and_hard_and_render_little_in_vain() -> None:
    good = Totals(7, images=100_000, rendered=120_000)
    good.recovery["worker.kill"] += [1.0] * 200
    good.wasted["worker.kill"], good.alone["worker.kill"] = 640, 10
    good.demand()
    assert good.violations == []
    poor = Totals(7, images=99_999, rendered=120_000)
    poor.recovery["worker.kill"] += [1.0] * 199
    poor.wasted["worker.kill"], poor.alone["worker.kill"] = 650, 10
    poor.demand()
    assert [violation.text.split(" of ")[0] for violation in poor.violations] == [
        "99,999 images",
        "199 faults",
        "101 rendered in vain for a fault",
        "65 rendered in vain for a worker killed",
    ]
