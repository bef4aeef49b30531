"""The set of hashes that finds custom ids used twice."""

from __future__ import annotations

import random

from api.openai.seen import Seen


def test_it_agrees_with_a_set() -> None:
    numbers = random.Random(3)
    seen, known = Seen(), set[int]()
    for _ in range(20_000):
        number = numbers.choice([numbers.getrandbits(64), numbers.getrandbits(10) + 1])
        assert seen.add(number) is (number not in known)
        known.add(number)
    assert len(seen) == len(known)
    assert not any(seen.add(number) for number in known)


def test_a_number_takes_32_bytes_at_most() -> None:
    seen, numbers = Seen(), random.Random(3)
    for _ in range(100_000):
        seen.add(numbers.getrandbits(64))
    assert len(seen) == 100_000
    assert seen.bytes <= 32 * len(seen)
