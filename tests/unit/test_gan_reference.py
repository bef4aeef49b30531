"""The bytes and scores of twenty reference items are those that were kept, in every form of the
model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit import reference_items
from worker.generators import gan

KEPT = json.loads((Path(__file__).parent / "reference_items.json").read_text())


def test_every_form_has_its_bytes_kept() -> None:
    assert set(KEPT["sha256"]) == set(KEPT["scores"]) == set(gan.ON_CPU)
    for each in KEPT["sha256"].values():
        assert len(each) == len(set(each)) == len(reference_items.PROMPTS) == 20


@pytest.mark.parametrize("form", gan.ON_CPU)
def test_reference_items_have_the_bytes_that_were_kept(form: str) -> None:
    if reference_items.platform(form) != KEPT["platform"][form]:
        pytest.skip("another platform has another fingerprint")
    digests, scores = reference_items.rendered(form)
    assert digests == KEPT["sha256"][form]
    assert scores == pytest.approx(KEPT["scores"][form], abs=2e-4)
