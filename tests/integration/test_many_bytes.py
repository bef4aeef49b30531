"""From text to PNG: the same bytes in every batch, at every place, on one thread and on two.
`python -m tests.unit.many_bytes` does it with ten thousand prompts."""

from __future__ import annotations

import random

import pytest

from tests.unit import many_bytes
from worker.gan import integers
from worker.generators import gan
from worker.generators.base import Pixels

pytestmark = pytest.mark.timeout(600)  # beside other work

COUNTS = {"none": 60} | ({} if integers.supported() else {"int8": 60})  # where they are slow


@pytest.mark.parametrize("form", gan.ON_CPU)
def test_a_picture_has_the_same_bytes_in_any_company(form: str) -> None:
    assert many_bytes.differences(form, COUNTS.get(form, 600)) == []


def test_so_it_has_where_float32_holds_the_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integers, "supported", lambda: False)
    assert many_bytes.differences("student", 100) == []


def test_prompts_have_every_length_and_batches_every_size() -> None:
    asked = many_bytes.items(600)
    lengths = {len(item.prompt.split(" ")) for item in asked}
    assert lengths == set(range(1, 257))
    sizes = [len(batch) for batch in many_bytes.company(asked * 4, random.Random(7))]
    assert set(sizes) == set(range(1, 33)) and sum(sizes) == 2400


def test_a_picture_that_depends_on_its_neighbours_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gan.EmojiGan.generate

    def leaky(self: gan.EmojiGan, items: list[many_bytes.Item]) -> Pixels:
        made = whole(self, items)
        if len(items) > 8:
            made[3, 0, 0, 0] ^= 1
        return made

    monkeypatch.setattr(gan.EmojiGan, "generate", leaky)
    assert "in a batch of" in many_bytes.differences("none", 40)[0]
