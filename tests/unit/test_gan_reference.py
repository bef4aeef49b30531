"""The bytes and scores of twenty reference items are those that were kept, in every form of the
model."""

from __future__ import annotations

import pytest

from tests.unit import reference_items
from worker.generators import gan

KEPT = reference_items.kept()


def test_every_form_has_its_bytes_kept() -> None:
    assert set(KEPT) == set(gan.ON_CPU)
    for each in KEPT.values():
        platforms = [one["platform"] for one in each]
        assert platforms and all(platforms.count(own) == 1 for own in platforms)
        assert any(None not in one["sha256"] and one["scores"] for one in each)
        for one in each:
            seen = [digest for digest in one["sha256"] if digest]
            assert len(one["sha256"]) == 20 and len(seen) == len(set(seen)) >= 12
            assert len(one["scores"] or one["sha256"]) == len(reference_items.PROMPTS) == 20


def test_onnx_draws_the_same_with_vnni_and_without() -> None:
    each = {one["platform"][0].endswith("vnni"): one for one in KEPT["onnx"]}
    for figures in ("sha256", "scores"):
        here = each[False][figures]
        assert sum(one is not None for one in each[True][figures]) >= 12
        assert here == reference_items.known(each[True][figures], here)


@pytest.mark.parametrize("form", gan.ON_CPU)
def test_reference_items_have_the_bytes_that_were_kept(form: str) -> None:
    here = reference_items.platform(form)
    own = next((one for one in KEPT[form] if one["platform"] == here), None)
    if own is None:
        pytest.skip("another platform has another fingerprint")
    digests, scores = reference_items.rendered(form)
    assert digests == reference_items.known(own["sha256"], digests)
    assert scores == pytest.approx(reference_items.known(own["scores"], scores), abs=2e-4)
