"""Padding, halving, bisection and the lock, on a generator that notes what it is given."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from promptmill.jobs import Item
from worker import render
from worker.generators.base import OutOfMemory, Pixels
from worker.generators.stub import Stub
from worker.outcomes import Fault, Picture
from worker.render import Renderer, Turn


def items(*prompts: str) -> list[Item]:
    return [
        Item(index=i, row=i, sample=0, prompt=p, seed=i, width=64, height=64)
        for i, p in enumerate(prompts)
    ]


class Noting(Stub):
    """The stub, remembering its batches."""

    def __init__(self) -> None:
        self.load(device="cpu", quantization="none")
        self.batches: list[int] = []

    def generate(self, items: Sequence[Item]) -> Pixels:
        self.batches.append(len(items))
        return super().generate(items)


class Fixed(Noting):
    """One that is not batch-invariant."""

    caps = replace(Stub.caps, batch_invariant=False, batch_shapes=(2, 4, 8))


class Early(Noting):
    """One that prepares, and cannot prepare "!early"."""

    def __init__(self) -> None:
        super().__init__()
        self.prepared: list[str] = []

    def prepare(self, items: Sequence[Item]) -> None:
        if any("!early" in item.prompt for item in items):
            raise ValueError("not this one")
        self.prepared += [item.prompt for item in items]


def test_what_can_be_prepared_is_and_a_failure_is_left_to_the_rendering() -> None:
    generator = Early()
    renderer = Renderer(generator)
    renderer.prepare(items("a", "b"))
    renderer.prepare([])
    assert generator.prepared == ["a", "b"]
    renderer.prepare(items("!early"))
    assert isinstance(renderer.render("b", items("!early"))[0], Picture)
    Renderer(Noting()).prepare(items("a"))


def test_a_batch_is_padded_to_a_shape_and_padding_is_dropped() -> None:
    generator = Noting()
    outcomes = Renderer(generator).render("b", items("a", "b", "c"))
    assert generator.batches == [4]
    assert len(outcomes) == 3
    assert all(isinstance(o, Picture) and o.pixels.shape == (64, 64, 3) for o in outcomes)


def test_the_same_item_alone_and_in_a_batch_has_the_same_pixels() -> None:
    renderer = Renderer(Noting())
    batch = renderer.render("b", items("a", "b", "c"))
    alone = renderer.render("b", items("a", "b", "c")[1:2])
    assert isinstance(batch[1], Picture)
    assert isinstance(alone[0], Picture)
    np.testing.assert_array_equal(batch[1].pixels, alone[0].pixels)
    assert isinstance(batch[0], Picture)
    assert (batch[0].pixels != alone[0].pixels).any()


def test_a_batch_too_large_for_any_shape_is_cut() -> None:
    generator = Noting()
    outcomes = Renderer(generator).render("b", items(*map(str, range(70))))
    assert generator.batches == [32, 32, 8]
    assert len(outcomes) == 70


def test_one_poison_among_64_fails_alone_and_keeps_its_place() -> None:
    prompts = [f"p{i}" for i in range(64)]
    prompts[41] = "poison !raise"
    outcomes = Renderer(Noting()).render("b", items(*prompts))
    assert [i for i, o in enumerate(outcomes) if isinstance(o, Fault)] == [41]
    fault = outcomes[41]
    assert isinstance(fault, Fault)
    assert fault.code == "render_failed"
    assert "cannot be rendered" in fault.text


def test_out_of_memory_halves_the_cap_tells_it_and_renders_all() -> None:
    told: list[tuple[str, int]] = []
    generator = Noting()
    renderer = Renderer(generator, lower=lambda bucket, cap: told.append((bucket, cap)))
    outcomes = renderer.render("b", items("!oom4", *map(str, range(15))))
    assert all(isinstance(o, Picture) for o in outcomes)
    assert told == [("b", 8), ("b", 4)]
    assert renderer.limit("b") == 4
    assert renderer.limit("other") == 32
    generator.batches.clear()
    renderer.render("b", items("!oom4", *map(str, range(15))))
    assert max(generator.batches) == 4


def test_out_of_memory_of_a_single_image_is_its_fault() -> None:
    outcomes = Renderer(Noting()).render("b", items("!oom0"))
    assert outcomes == [Fault("out_of_memory", "1 images do not fit")]


def test_an_image_that_does_not_fit_alone_is_tried_once_more() -> None:
    """What others held is gone by then."""

    class Full(Noting):
        def generate(self, items: Sequence[Item]) -> Pixels:
            if not self.batches:
                self.batches.append(len(items))
                raise OutOfMemory("once")
            return super().generate(items)

    generator = Full()
    [fits, never] = Renderer(generator, caps={"b": 1}).render("b", items("a", "!oom0"))
    assert isinstance(fits, Picture)
    assert never == Fault("out_of_memory", "1 images do not fit")
    assert generator.batches == [1, 1, 1, 1]


def test_a_generator_that_is_not_batch_invariant_runs_one_shape_named_in_its_fingerprint() -> None:
    generator = Fixed()
    outcomes = Renderer(generator).render("b", items("a", "b", "c"))
    assert generator.batches == [8]
    assert {o.fingerprint for o in outcomes if isinstance(o, Picture)} == {"stub-1-b8"}
    renderer = Renderer(generator, caps={"b": 4})
    generator.batches.clear()
    outcomes = renderer.render("b", items("a", "b", "c"))
    assert generator.batches == [4]
    assert {o.fingerprint for o in outcomes if isinstance(o, Picture)} == {"stub-1-b4"}


def test_a_generator_that_answers_another_number_of_images_is_refused() -> None:
    class Short(Noting):
        def generate(self, items: Sequence[Item]) -> Pixels:
            return super().generate(items)[:0]

    outcomes = Renderer(Short()).render("b", items("a"))
    assert isinstance(outcomes[0], Fault)
    assert "answered" in outcomes[0].text


def test_a_generator_that_answers_another_size_is_refused() -> None:
    class Rounding(Noting):
        def generate(self, items: Sequence[Item]) -> Pixels:
            return super().generate(items)[:, :56]

    outcomes = Renderer(Rounding()).render("b", items("a"))
    assert isinstance(outcomes[0], Fault)
    assert "(1, 56, 64, 3) to 1 items of 64x64" in outcomes[0].text


def test_whoever_asks_first_goes_before_those_who_wait_longer() -> None:
    turn, order = Turn(), []
    waiting = threading.Semaphore(0)

    def ask(name: str, first: bool) -> None:
        waiting.release()
        with turn.take(first=first):
            order.append(name)

    with turn.take():
        threads = [threading.Thread(target=ask, args=(f"bulk{i}", False)) for i in range(3)]
        for thread in threads:
            thread.start()
            assert waiting.acquire(timeout=5)
        late = threading.Thread(target=ask, args=("interactive", True))
        late.start()
        assert waiting.acquire(timeout=5)
        deadline = time.monotonic() + 5
        while not turn.awaited and time.monotonic() < deadline:
            time.sleep(0.001)
    for thread in [*threads, late]:
        thread.join(5)
    assert order[0] == "interactive"
    assert sorted(order[1:]) == ["bulk0", "bulk1", "bulk2"]


def test_others_hold_back_while_somebody_is_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "PATIENCE", 30.0)
    turn, order = Turn(), []

    def bulk() -> None:
        with turn.take():
            order.append("bulk")

    other = threading.Thread(target=bulk)
    with turn.ahead():
        other.start()
        with turn.take(first=True):
            order.append("first")
        other.join(0.1)
        order.append("committed")
    other.join(5)
    assert order == ["first", "committed", "bulk"]


def test_nobody_holds_back_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "PATIENCE", 0.01)
    turn = Turn()
    with turn.ahead(), turn.take():
        assert not turn.awaited


@pytest.mark.parametrize(
    ("elsewhere", "computes", "expected"),
    [(False, False, ["next", "last"]), (False, True, ["last", "next"]),
     (True, True, ["next", "last"])],
    ids=["waited", "computed", "computed elsewhere"],
)  # fmt: skip
def test_whoever_left_the_processor_idle_lets_the_next_begin_first(
    elsewhere: bool, computes: bool, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "HAND_OVER", 1.0)
    if computes:
        monkeypatch.setattr(time, "thread_time", time.monotonic)
    turn, order, last = Turn(elsewhere=elsewhere), [], threading.Event()

    def wait() -> None:
        with turn.take():
            last.wait(0.5)
            order.append("next")

    other = threading.Thread(target=wait)
    with turn.take():
        other.start()
        time.sleep(0.2)
    order.append("last")
    last.set()
    other.join(5)
    assert order == expected


def test_nobody_leaves_the_processor_where_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "HAND_OVER", 30.0)
    turn, begun = Turn(elsewhere=True), time.monotonic()
    with turn.take():
        pass
    assert time.monotonic() - begun < 10


def test_an_error_inside_a_turn_gives_it_back() -> None:
    turn = Turn()
    with pytest.raises(OutOfMemory), turn.take():
        raise OutOfMemory
    with turn.take():
        assert not turn.awaited
