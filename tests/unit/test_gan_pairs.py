"""Two subjects in one prompt: where it is cut, and the picture that two drawings make."""

from __future__ import annotations

import numpy as np
import pytest

from worker.gan import corpus, pairs


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a cat and a dog", ("a cat", "dog")),
        ("cat next to dog", ("cat", "dog")),
        ("an apple beside the rocket", ("an apple", "rocket")),
        ("draw a sun AND a moon, please", ("draw a sun", "moon, please")),
        ("he gave her a rose and a box of chocolates", ("he gave her a rose", "box of chocolates")),
        ("two cats and three dogs", ("two cats", "three dogs")),
        ("cat and dog", None),
        ("bow and arrow", None),
        ("flag of Bosnia & Herzegovina", None),
        ("a black and white cat", None),
        ("two hearts, a small one and a large one", None),
        ("a grey castle with a tower and a flag", None),
        ("globe showing Europe and Africa", None),
        ("An owl sits in the dark and watches.", None),
        ("It rained all day and the cat slept", None),
        ("and a dog", None),
        ("sand", None),
        (" and ", None),
        ("", None),
    ],
)
def test_where_a_prompt_is_cut(text: str, found: tuple[str, str] | None) -> None:
    assert pairs.subjects(text) == (found or (text,))


KNOWN = frozenset(
    {"cat", "dog", "bow and arrow", "sun", "nail polish", "star", "crescent", "star and crescent"}
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cat and dog", ("cat", "dog")),
        ("Cats & the dogs.", ("Cats", "dogs.")),
        ("nail polish and a star and crescent", ("nail polish", "star and crescent")),
        ("a star and crescent and sun", ("a star and crescent", "sun")),
        ("a star and crescent next to nail polish", ("a star and crescent", "nail polish")),
        ("cats and dogs, furry, two friends", ("cats", "dogs, furry, two friends")),
        ("cat, dog and sun", None),
        ("star and crescent, golden", None),
        ("red cats and tiny black dogs", ("red cats", "tiny black dogs")),
        ("the big bow and arrow", None),
        ("bow and arrow", None),
        ("the bow and arrow", None),
        ("black and white cat", None),
        ("cat and mouse", None),
        ("a cat and a mouse", ("a cat", "mouse")),
        ("sun and", None),
        ("", None),
    ],
)
def test_between_known_names_a_prompt_is_cut_and_within_one_it_is_not(
    text: str, found: tuple[str, str] | None
) -> None:
    assert pairs.subjects(text, KNOWN) == (found or (text,))


def test_every_form_of_two_subjects_that_is_judged_is_cut() -> None:
    for form in corpus.PAIRS:
        assert pairs.subjects(form.format("a cat", "a dog")) == ("a cat", "dog")


def test_two_drawings_stand_side_by_side_at_half_their_size() -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    made = pairs.join(drawn, [1, 2, 1])
    assert made.shape == (3, 64, 64, 3)
    assert np.array_equal(made[0], drawn[0]) and np.array_equal(made[2], drawn[3])
    assert (made[1, :16] == 255).all() and (made[1, 48:] == 255).all()
    for side, one in ((slice(0, 32), drawn[1]), (slice(32, 64), drawn[2])):
        small = one.reshape(32, 2, 32, 2, 3).mean((1, 3))
        assert np.abs(made[1, 16:48, side] - small).max() <= 0.5
