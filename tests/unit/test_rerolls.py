"""Scores: better of several, whatever the batch; what is recorded of each attempt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from promptmill import jobs
from promptmill.jobs import Item
from promptmill.records import Image, Output, Work
from worker import filing
from worker.generators.base import Input, OutOfMemory, Pixels
from worker.generators.stub import Stub
from worker.outcomes import Fault, Picture
from worker.render import Renderer

PLAIN = Item(0, 0, 0, "a cat", 7, 64, 64)


class Noting(Stub):
    """The stub, remembering its batches. Some seeds cannot be rendered."""

    def __init__(self, *, broken: frozenset[int] = frozenset()) -> None:
        self.load(device="cpu", quantization="none")
        self.batches: list[int] = []
        self.broken = broken

    def generate(self, items: Sequence[Item], inputs: Sequence[Input] = ()) -> Pixels:
        self.batches.append(len(items))
        if self.broken.intersection(item.seed for item in items):
            raise ValueError("this seed is broken")
        return super().generate(items, inputs)


def asking(seed: int, least: float, most: int) -> Item:
    return replace(PLAIN, index=seed, seed=seed, min_score=least, max_rerolls=most)


def pictures(items: Sequence[Item], generator: Stub | None = None) -> list[Picture]:
    renderer = Renderer(generator or Noting())
    outcomes = renderer.scored(renderer.render("b", items))
    assert all(isinstance(one, Picture) for one in outcomes)
    return [one for one in outcomes if isinstance(one, Picture)]


def score_of(seed: int) -> float:
    [picture] = pictures([replace(PLAIN, seed=seed)])
    assert picture.score is not None
    return picture.score


def test_every_picture_has_its_score_and_no_attempts_unless_asked() -> None:
    [picture] = pictures([PLAIN])
    assert picture.score == float(picture.pixels.mean() / 255)
    assert picture.attempts == ()


def test_seeds_of_attempts_are_written_down() -> None:
    assert jobs.reroll_seed(7, 0) == 7
    assert jobs.reroll_seed(7, 1) == 3709274697607039
    assert jobs.reroll_seed(7, 1) != jobs.derive_seed(7, 1)


def test_the_first_attempt_that_is_good_enough_ends_the_search() -> None:
    seeds = [jobs.reroll_seed(7, attempt) for attempt in range(9)]
    scores = [score_of(seed) for seed in seeds]
    least = sorted(scores)[-3]
    first = next(n for n, score in enumerate(scores) if score >= least)
    assert first > 0
    [picture] = pictures([asking(7, least, 8)])
    assert (picture.item.seed, picture.score) == (seeds[first], scores[first])
    tried = [(attempt.seed, attempt.score) for attempt in picture.attempts]
    assert tried == list(zip(seeds, scores, strict=True))[: first + 1]
    alone = pictures([replace(PLAIN, seed=seeds[first])])[0]
    np.testing.assert_array_equal(picture.pixels, alone.pixels)


def test_if_none_is_good_enough_the_best_is_kept() -> None:
    [picture] = pictures([asking(7, 2.0, 8)])
    scores = [attempt.score for attempt in picture.attempts]
    assert len(scores) == 9
    assert picture.score == max(scores, key=lambda score: score or 0.0)


def test_what_an_item_gets_does_not_depend_on_the_batch() -> None:
    items = [asking(seed, 0.505 if seed % 3 else 0.1, seed % 5) for seed in range(32)]
    generator = Noting()
    together = pictures(items, generator)
    assert generator.batches[0] == 32
    assert len(generator.batches) == 5
    for item, picture in zip(items, together, strict=True):
        [alone] = pictures([item])
        assert alone.attempts == picture.attempts
        np.testing.assert_array_equal(alone.pixels, picture.pixels)
    mixed = pictures([*reversed(items)])[::-1]
    assert [p.attempts for p in mixed] == [p.attempts for p in together]


def test_an_attempt_that_cannot_be_rendered_is_one_of_the_tries() -> None:
    seeds = [jobs.reroll_seed(7, attempt) for attempt in range(4)]
    [picture] = pictures([asking(7, 2.0, 3)], Noting(broken=frozenset(seeds[1:2])))
    assert [attempt.seed for attempt in picture.attempts] == seeds
    assert picture.attempts[1].score is None
    outcome = Renderer(Noting(broken=frozenset({7}))).render("b", [asking(7, 2.0, 3)])
    assert isinstance(outcome[0], Fault)


def test_a_score_on_which_nothing_hangs_is_not_waited_for() -> None:
    renderer = Renderer(Noting())
    items = [PLAIN, asking(8, 0.1, 1), replace(PLAIN, index=1, seed=9)]
    first, asked, last = renderer.render("b", items[:1]) + renderer.render("b", items[1:])
    assert isinstance(first, Picture) and first.score is None
    assert isinstance(asked, Picture) and asked.score is not None
    fault = Fault("render_failed", "no picture")
    scored = renderer.scored([first, fault, asked, last])
    assert scored[1:3] == [fault, asked]
    assert [one.score for one in (scored[0], scored[3]) if isinstance(one, Picture)] == [
        score_of(7),
        score_of(9),
    ]
    assert renderer.scored([fault]) == [fault]


@pytest.mark.parametrize("least", [None, 0.1])
@pytest.mark.parametrize("scores", [[float("nan")], [float("inf")], [], [0.5, 0.5]])
def test_a_score_that_is_no_number_is_a_fault_of_its_image(
    scores: list[float], least: float | None
) -> None:
    class Odd(Noting):
        def score(self, items: Sequence[Item], pixels: Pixels) -> list[float]:
            return scores

    renderer = Renderer(Odd())
    items = [replace(PLAIN, seed=seed, min_score=least) for seed in (7, 8)]
    for outcome in renderer.scored(renderer.render("b", items[:1])):
        assert isinstance(outcome, Fault)
        assert outcome.code == "render_failed"
    if len(scores) != 2:
        assert all(isinstance(one, Fault) for one in renderer.scored(renderer.render("b", items)))


def test_memory_that_runs_out_changes_nothing() -> None:
    class Small(Noting):
        def generate(self, items: Sequence[Item], inputs: Sequence[Input] = ()) -> Pixels:
            if len(items) > 4:
                raise OutOfMemory("too many")
            return super().generate(items, inputs)

    items = [asking(seed, 0.505, 4) for seed in range(10)]
    small, large = pictures(items, Small()), pictures(items)
    assert [p.attempts for p in small] == [p.attempts for p in large]


def test_the_row_tells_the_seed_that_was_used_and_every_attempt() -> None:
    item = asking(7, 2.0, 3)
    [picture] = pictures([item])
    work = Work(item, 1, "job_1", 1, 0, 0, 0, "stub", Output())
    file = filing.to_file((work, picture))
    kept = filing.Kept(file, "k", file.sha256, 9, "fp", seed=picture.item.seed, score=picture.score)
    result = filing.done(kept, "w")
    assert (result.seed, result.score) == (picture.item.seed, picture.score)
    assert json.loads(result.rerolls or "") == [[a.seed, a.score] for a in picture.attempts]
    same = filing.to_file((work, pictures([replace(PLAIN, seed=picture.item.seed)])[0]))
    assert same.sha256 == file.sha256


def test_below_min_score_is_told_of_done_images_that_ask() -> None:
    state = jobs.ImageState.DONE
    item = asking(7, 0.5, 3)
    assert Image(1, PLAIN, state, score=0.1).below_min_score is None
    assert Image(1, item, jobs.ImageState.QUEUED).below_min_score is None
    assert Image(1, item, state, score=0.4).below_min_score is True
    assert Image(1, item, state, score=0.5).below_min_score is False
