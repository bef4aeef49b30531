"""The judge's pictures: cut to what is drawn, with outlines of any width."""

from __future__ import annotations

from worker.gan import openmoji

SVG = (
    b'<svg viewBox="0 0 72 72" xmlns="http://www.w3.org/2000/svg"><rect x="30" y="26" width="20" '
    b'height="20" fill="#f00" stroke="#000" stroke-width="4"/></svg>'
)


def test_a_drawing_fills_its_picture() -> None:
    made = openmoji.filled(SVG)
    assert made.shape == (3, 64, 64)
    assert (made[:, 0] > 200).all() and (made[:, :, 0] > 200).all()
    assert (made[:, 4:60, 4:60] < 250).any(0).all()
    assert tuple(made[:, 32, 32]) == (255, 0, 0)


def test_outlines_get_the_width_that_is_asked_for() -> None:
    dark = [
        int((openmoji.filled(openmoji.outlined(SVG, share)).max(0) < 100).sum())
        for share in openmoji.OUTLINES
    ]
    assert dark[0] > 1.5 * dark[1] and dark[2] < 10


def test_an_empty_drawing_is_a_white_picture() -> None:
    empty = b'<svg viewBox="0 0 72 72" xmlns="http://www.w3.org/2000/svg"/>'
    assert (openmoji.filled(empty) == 255).all()
