"""The bucket of tokens behind 429."""

from __future__ import annotations

import pytest

from api.pacing import BURST, Pacing, TooManyRequests


def test_a_burst_then_the_rate() -> None:
    pacing = Pacing(2.0)
    for _ in range(int(2 * BURST)):
        pacing.take(1, now=100.0)
    with pytest.raises(TooManyRequests) as refused:
        pacing.take(1, now=100.0)
    assert refused.value.retry_after == pytest.approx(0.5)
    pacing.take(2, now=100.0)  # another tenant's bucket is its own
    pacing.take(1, now=100.6)
    with pytest.raises(TooManyRequests):
        pacing.take(1, now=100.6)


def test_a_refusal_costs_nothing_and_a_slow_rate_lets_one_through() -> None:
    pacing = Pacing(0.05)
    pacing.take(1, now=0.0)
    for moment in (1.0, 2.0, 19.0):
        with pytest.raises(TooManyRequests):
            pacing.take(1, now=moment)
    pacing.take(1, now=20.1)


def test_zero_is_any_number() -> None:
    pacing = Pacing(0.0)
    for _ in range(10_000):
        pacing.take(1)
