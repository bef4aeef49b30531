"""The judge's pictures: found by name, cut to what is drawn, with outlines of any width."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.unit.test_gan_data import pack
from worker.gan import colours, data, dyes, jurors
from worker.gan.data import Concept

SVG = (
    b'<svg viewBox="0 0 72 72" xmlns="http://www.w3.org/2000/svg"><rect x="30" y="26" width="20" '
    b'height="20" fill="#f00" stroke="#000" stroke-width="4"/></svg>'
)


def test_a_drawing_fills_its_picture() -> None:
    made = jurors.filled(SVG)
    assert made.shape == (3, 64, 64)
    assert (made[:, 0] > 200).all() and (made[:, :, 0] > 200).all()
    assert (made[:, 4:60, 4:60] < 250).any(0).all()
    assert tuple(made[:, 32, 32]) == (255, 0, 0)


def test_outlines_get_the_width_that_is_asked_for() -> None:
    dark = [
        int((jurors.filled(jurors.outlined(SVG, share)).max(0) < 100).sum())
        for share in jurors.OUTLINES
    ]
    assert dark[0] > 1.5 * dark[1] and dark[2] < 10


def test_an_empty_drawing_is_a_white_picture() -> None:
    empty = b'<svg viewBox="0 0 72 72" xmlns="http://www.w3.org/2000/svg"/>'
    assert (jurors.filled(empty) == 255).all()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Packages of made-up drawings: a filled square of each hand's colour."""

    def body(colour: str) -> str:
        return f'<path fill="{colour}" d="M2 2h8v8h-8z"/>'

    square = b'<svg viewBox="0 0 12 12" xmlns="http://www.w3.org/2000/svg">%s</svg>'
    red = square % body("#f00").encode()
    names = {each: {} for each in jurors.SHORT} | {"github": {"1F602": ["joy"]}}
    members = {f"en/shortcodes/{each}.json": json.dumps(of).encode() for each, of in names.items()}
    icons = {
        "width": 12,
        "height": 12,
        "icons": {"face-with-tears-2": {"body": body("#0f0")}, "joy": {"body": body("#00f")}},
        "aliases": {"flag-for-france": {"parent": "tricolore"}},
    }
    icons["icons"] |= {"tricolore": {"body": body("#000")}, "other": {"body": body("#fff")}}
    empty = {"icons": {}}
    packages = {jurors.OPENMOJI: {f"{jurors.FOLDER}/1F602.svg": red}, data.NAMES_PACKAGE: members}
    for number, package in enumerate(jurors.ICONS):
        packages[package] = {"icons.json": json.dumps(empty if number else icons).encode()}
    (tmp_path / "packages").mkdir()
    for package, files in packages.items():
        name, _, version = package.rpartition("@")
        archive = f"{name.strip('@').replace('/', '-')}-{version}.tgz"
        pack(tmp_path / "packages" / archive, files)
    return tmp_path


CHOSEN = (
    Concept("face with tears", "1F602", ("face with tears",), 0.3),
    Concept("flag: France", "1F1EB-1F1F7", ("flag of France",), 1.0),
)


def test_every_hand_is_matched_by_label_short_name_alias_or_code_points(folder: Path) -> None:
    jury = jurors.jury(folder, CHOSEN)
    assert jury.concept.tolist() == [0, 0, 0, 0, 0, 1]
    assert jury.weight.tolist() == [jurors.OFTEN] * 3 + [1.0] * 3
    middle = jury.pictures[:, :, 32, 32].tolist()
    assert middle == [[255, 0, 0]] * 3 + [[0, 255, 0], [0, 0, 255], [0, 0, 0]]


def test_things_are_shown_in_other_colours_too(folder: Path) -> None:
    jury = jurors.jury(folder, [replace(CHOSEN[0], weight=0.5)])
    dyed = jury.colour > 0
    assert dyed.sum() == 3 * jurors.DYES  # OpenMoji, and two of another hand
    assert jury.told.equal(dyed) and torch.allclose(jury.weight[dyed], torch.tensor(jurors.DYED))
    assert jury.concept.unique().tolist() == [0]
    paints = [list(colours.PAINTS.values())[n - 1] for n in jury.colour[dyed].tolist()]
    middle = jury.pictures[dyed][:, :, 32, 32].int()
    assert (middle - torch.tensor(paints)).abs().amax() <= dyes.SHADES + 2
    again = jurors.jury(folder, [replace(CHOSEN[0], weight=0.5)])
    assert again.pictures.equal(jury.pictures)


def test_people_are_shown_in_skin_tones_that_a_hand_did_not_draw(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toned = Concept("face with tears: dark skin tone", "1F602-1F3FF", ("dark",), 0.0)
    skins = dict.fromkeys(jurors.ICONS, (("00ff00",),))
    monkeypatch.setattr(dyes, "SKINS", skins)
    jury = jurors.jury(folder, [CHOSEN[0], toned])
    dark = jury.concept == 1
    assert dark.sum() == 1 and jury.told.equal(dark) and (jury.colour == 0).all()
    skin = jury.pictures[dark][0, :, 32, 32].int()
    assert (skin - torch.tensor(dyes.TONES[4])).abs().amax() <= dyes.SHADES


def test_openmoji_alone_is_as_published(folder: Path) -> None:
    pictures, concept = jurors.openmoji(folder, CHOSEN)
    assert concept.tolist() == [0] and pictures[0, :, 3, 3].tolist() == [255, 255, 255]


def test_names_are_compared_by_letters_and_digits() -> None:
    assert jurors.key("flag: São Tomé & Príncipe") == jurors.key("flag-sao-tome-and-principe")
    assert jurors.key("2hearts") != jurors.key("hearts")
