"""Int8's own pictures without int8: in float32, on any processor."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.unit import reference_items
from worker.gan import integers
from worker.gan.score import LEVELS
from worker.generators import gan_engines

VNNI = "AVX512"  # torch's kernels
OTHERS = {"amx_int8", gan_engines.HELD}  # that round otherwise, or have no VNNI


def test_it_draws_and_scores_as_vnni_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures whose bytes were kept on a processor that has it."""
    monkeypatch.setattr(integers, "supported", lambda: False)
    [there] = [
        one
        for one in reference_items.kept()["int8"]
        if one["platform"][0] == VNNI and OTHERS.isdisjoint(one["platform"])
    ]
    digests, scores = reference_items.rendered("int8")
    assert sum(one is not None for one in there["sha256"]) >= 12
    assert digests == reference_items.known(there["sha256"], digests)
    assert scores == pytest.approx(reference_items.known(there["scores"], scores), abs=2e-4)


def test_a_worker_that_holds_them_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    for supported in (True, False):
        monkeypatch.setattr(integers, "supported", lambda here=supported: here)
        told.append(gan_engines.HELD in gan_engines.platform(exact=True))
    assert told == [False, True]


def test_weights_are_parted_where_their_sums_would_be_too_large() -> None:
    """Inputs are codes of 8 bits, the worst there are: all 255 where a weight is positive."""
    small, large = torch.full((3, 500), 127.0), torch.full((3, 1000), 127.0)
    assert [len(integers.held(each)) for each in (small, large)] == [1, 2]
    large[:, ::2] = -127
    assert len(integers.held(large)) == 1 and len(integers.held(large, signed=True)) == 2
    with pytest.raises(ValueError, match="exactly"):
        integers.held(torch.full((3, 1100), 127.0))


def test_a_sum_of_two_parts_is_rounded_as_an_integer_is() -> None:
    chance = np.random.default_rng(2)
    weight = chance.integers(90, 128, (64, 1000))
    codes = chance.integers(200, LEVELS + 1, (300, 1000))
    parts = integers.held(torch.from_numpy(weight).float())
    assert len(parts) == 2
    halves = torch.from_numpy(codes).float().split(500, 1)
    sums = sum(half @ part.T for half, part in zip(halves, parts, strict=True))
    whole = codes @ weight.T
    assert whole.max() > integers.HELD and (whole % 2).any()
    assert np.array_equal(np.asarray(sums), whole.astype(np.float32))
