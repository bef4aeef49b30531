"""Drawings of the hands that judge, in colours and skin tones that they were not drawn in."""

from __future__ import annotations

import random

import numpy as np

from worker.gan import colours, dyes, jurors
from worker.gan.data import Concept

SVG = (
    b'<svg viewBox="0 0 12 12" xmlns="http://www.w3.org/2000/svg">'
    b'<path fill="#e22" d="M1 1h10v10h-10z"/><path fill="#881414" d="M1 8h10v3h-10z"/>'
    b'<path fill="#22aa33" d="M5 1h2v2h-2z"/><path stroke="#111111" d="M1 6h10"/></svg>'
)


def test_a_drawing_is_dyed_in_light_and_shade_and_its_other_colours_stay() -> None:
    made = dyes.dyed(SVG, jurors.filled(SVG), colours.PAINTS["blue"])
    before, after = jurors.filled(SVG), jurors.filled(made)
    leaf, body, shade = (slice(None), 8, 32), (slice(None), 24, 10), (slice(None), 56, 10)
    assert np.array_equal(before[leaf], after[leaf])
    for place in (body, shade):
        assert before[place].argmax() == 0 and after[place].argmax() == 2
    assert after[shade].sum() < after[body].sum()


def test_a_drawing_without_colours_stays() -> None:
    plain = b'<svg viewBox="0 0 2 2" xmlns="http://www.w3.org/2000/svg"><path d="M0 0h2v2"/></svg>'
    assert dyes.dyed(plain, jurors.filled(plain), (1, 2, 3)) == plain


def test_skin_takes_a_tone_and_clothes_do_not() -> None:
    hand = jurors.ICONS[2]
    person = SVG.replace(b"#e22", b"#ffd3b6").replace(b"#881414", b"#EDC0A2")
    made = dyes.skinned(person, hand, dyes.TONES[4])
    assert made is not None and b"#22aa33" in made and b"#111111" in made
    light, dark = jurors.filled(person), jurors.filled(made)
    assert dark[:, 24, 10].tolist() == list(dyes.TONES[4])
    assert dark[:, 56, 10].astype(int).sum() < light[:, 56, 10].astype(int).sum() - 150
    assert dyes.skinned(SVG, hand, dyes.TONES[0]) is None
    assert set(dyes.SKINS) == set(jurors.ICONS)


def test_a_shade_is_close_to_its_paint_and_the_seed_decides_it() -> None:
    one, again = (dyes.varied((0, 128, 255), random.Random(3)) for _ in range(2))
    assert one == again
    assert all(abs(a - b) <= dyes.SHADES for a, b in zip(one, (0, 128, 255), strict=True))


CHOSEN = (
    Concept("waving hand", "1F44B", ("waving hand",), 1.0),
    Concept("detective", "1F575-FE0F", ("detective",), 0.5),
    Concept("cat", "1F408", ("cat",), 0.5),
    Concept("red heart", "2764-FE0F", ("red heart",), 1.0),
    Concept("flag: France", "1F1EB-1F1F7", ("flag of France",), 1.0),
    Concept("information", "2139-FE0F", ("information",), 0.3),
    Concept("waving hand: light skin tone", "1F44B-1F3FB", ("light",), 0.3),
    Concept("detective: dark skin tone", "1F575-1F3FF", ("dark",), 0.0),
)


def test_a_subject_is_known_in_its_tones() -> None:
    found = dyes.in_tones(CHOSEN)
    assert found.tones == {6, 7}
    assert found.of == {0: [(0, 6)], 1: [(4, 7)]}


def test_things_may_have_any_colour_but_people_signs_and_what_has_one_may_not() -> None:
    assert dyes.dyeable(CHOSEN) == [2]
