"""The list of mutants keeps up with the tree: each changes one place that is there, and
names tests that are there."""

from __future__ import annotations

import ast

import pytest

from tests.mutants.__main__ import ROOT, mutated
from tests.mutants.mutants import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_applies_exactly_once(mutant: Mutant) -> None:
    text = mutated(mutant, ROOT)
    if mutant.path.endswith(".py"):
        ast.parse(text)
    for test in mutant.tests:
        path, *names = test.split("::")
        code = (ROOT / path).read_text()
        assert all(f"def {name}(" in code or f"class {name}:" in code for name in names)


def test_no_two_have_one_name() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
