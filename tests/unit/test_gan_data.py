"""Captions, style cues and the data builder, on made-up packages."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from promptmill import errors
from worker.gan import captions, data


def png(colour: tuple[int, int, int, int], side: int = 64) -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", (side, side), colour).save(file, "PNG")
    return file.getvalue()


def pack(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as bundle:
        for name, content in members.items():
            header = tarfile.TarInfo(f"package/{name}")
            header.size = len(content)
            bundle.addfile(header, io.BytesIO(content))


@pytest.mark.parametrize(
    ("prompt", "plain", "vendor"),
    [
        ("rocket", "rocket", 0),
        ("rocket, twemoji style", "rocket", 1),
        ("Twemoji rocket", "rocket", 1),
        ("a rocket in noto style", "a rocket", 0),
        ("a rocket in the Twemoji emoji style, please", "a rocket , please", 1),
        ("noto or twemoji rocket", "or rocket", 1),
        ("twemoji", "twemoji", 1),
        ("", "", 0),
        ("annotopia", "annotopia", 0),
        ("🚀", "rocket", 0),
        ("a ❤️, twemoji", "a heavy black heart", 1),
        ("two  spaces", "two  spaces", 0),
    ],
)
def test_a_style_cue_is_taken_out_of_the_prompt(prompt: str, plain: str, vendor: int) -> None:
    assert captions.parse(prompt) == (plain, vendor)


def test_flags_get_the_wordings_people_use() -> None:
    assert captions.names("flag: France", ["fr"]) == [
        "flag of France",
        "France flag",
        "French flag",
    ]
    assert "Nauru flag" in captions.names("flag: Nauru", [])


def test_captions_start_with_the_label_and_keep_common_tags_in_company() -> None:
    found = captions.captions(
        "dog face", ["dog", "dog_face", "+1"], ["face", "puppy"], rare=frozenset({"puppy"})
    )
    assert found[0] == "dog face"
    assert "puppy" in found and "face" not in found and "dog face, face" in found
    assert len(found) == len(set(found))
    assert captions.PARAPHRASE.format("dog face") not in found


def entry(label: str, hexcode: str, **more: object) -> dict[str, object]:
    return {"label": label, "hexcode": hexcode, "group": 1, "tags": ["x"], **more}


def shot(hexcode: str) -> dict[str, object]:
    return {"unified": hexcode, "image": f"{hexcode.lower()}.png", "short_names": ["name"]}


def test_variants_are_left_out() -> None:
    emoji = [
        entry("person running", "1"),
        entry("woman running", "2"),
        entry("person running: facing right", "3"),
        entry("family: man, boy", "4"),
        entry("regional indicator A", "5", group=None),
        entry("woman", "6"),
        entry("undrawn", "7"),
    ]
    chosen = data.concepts(emoji, [shot(str(number)) for number in range(1, 7)])
    assert [one.label for one in chosen] == ["person running", "woman"]


def test_a_sprite_is_composited_on_white_and_scaled() -> None:
    assert data.sprite(png((0, 0, 0, 0))).min() == 255
    half = data.sprite(png((255, 0, 0, 128), side=128))
    assert half.shape == (3, 64, 64)
    assert half[0].min() == 255 and abs(int(half[1, 5, 5]) - 127) <= 1


def test_only_the_vendors_own_folder_is_read(tmp_path: Path) -> None:
    archive = tmp_path / "pictures.tgz"
    red = png((255, 0, 0, 255))
    pack(
        archive,
        {"img/google/64/1.png": red, "img/other/64/2.png": red, "img/google/sheet.png": red},
    )
    assert list(data.sprites(archive, "noto")) == ["1.png"]


def test_build_from_made_up_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def encode(self, texts: list[str]) -> torch.Tensor:
            return torch.ones(len(texts), 384)

    monkeypatch.setattr(data, "Conditioner", Fake)
    folder = tmp_path / "packages"
    folder.mkdir()
    index = json.dumps([shot("1"), shot("2")]).encode()
    red, blue = png((255, 0, 0, 255)), png((0, 0, 255, 255))
    pack(
        folder / "emoji-datasource-google-16.0.0.tgz",
        {"emoji.json": index, "img/google/64/1.png": red, "img/google/64/2.png": blue},
    )
    pack(folder / "emoji-datasource-twitter-16.0.0.tgz", {"img/twitter/64/1.png": red})
    names = json.dumps([entry("one", "1"), entry("two", "2")]).encode()
    pack(folder / "emojibase-data-17.0.0.tgz", {"en/data.json": names})
    made = data.build(tmp_path)
    assert made.labels == ("one", "two")
    assert made.pictures.shape == (3, 3, 64, 64) and made.pictures.dtype == torch.uint8
    assert made.concept.tolist() == [0, 0, 1] and made.vendor.tolist() == [0, 1, 0]
    assert int(made.spans[-1].sum()) == len(made.text)
    assert np.array_equal(made.pictures[2, :, 0, 0], [0, 0, 255])


def test_a_missing_training_set_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(errors.Error, match=r"run python -m worker\.gan\.data"):
        data.load(tmp_path)


def test_a_failed_fetch_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.Error, match="cannot fetch some-package@1"):
        data.fetch("some-package@1", tmp_path / "packages")
