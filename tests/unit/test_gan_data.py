"""Captions, style cues and the data builder, on made-up packages."""

from __future__ import annotations

import io
import itertools
import json
import random
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from promptmill import errors
from worker.gan import archives, captions, corpus, data, frames


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
        ("rocket", "rocket", None),
        ("rocket, twemoji style", "rocket", 1),
        ("Twemoji rocket", "rocket", 1),
        ("a rocket in noto style", "a rocket", 0),
        ("a rocket in the Twemoji emoji style, please", "a rocket , please", 1),
        ("noto or twemoji rocket", "or rocket", 1),
        ("twemoji", "twemoji", 1),
        ("", "", None),
        ("annotopia", "annotopia", None),
        ("🚀", "🚀", None),
        ("a ❤️, fluent", "a ❤️", 2),
        ("two  spaces", "two  spaces", None),
    ],
)
def test_a_style_cue_is_taken_out_of_the_prompt(
    prompt: str, plain: str, vendor: int | None
) -> None:
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


def test_what_an_emoji_is_called_can_be_told_from_its_captions() -> None:
    found = captions.captions("dog face", ["dog", "puppy_head"], ["pet"], rare=frozenset({"pet"}))
    assert captions.called(found) == ["dog face", "puppy head", "pet"]


def test_what_things_share_belongs_to_the_one_that_is_named_so() -> None:
    called = [
        ["clinking beer mugs", "beer", "pub"],
        ["beer mug", "beer", "ale", "pub"],
        ["pub", "ale"],
    ]
    assert corpus.owned(called) == [["clinking beer mugs"], ["beer mug", "beer"], ["pub"]]
    assert corpus.owned([["a", "x"], ["b", "y"]]) == [["a", "x"], ["b", "y"]]


def test_a_prompt_means_the_concept_of_that_name_before_that_of_a_caption() -> None:
    known = [
        data.Concept(captions[0], "1F600", captions[1:] or captions, 1.0)
        for captions in (
            ("astronaut", "astronaut", "rocket"),
            ("rocket",),
            ("automobile", "automobile", "car"),
            ("flag: France", "flag of France", "French flag"),
            ("rainbow flag", "rainbow flag", "rainbow"),
            ("Rainbow",),
        )
    ]
    prompts = ("rocket", "a car", "flag of France", "rainbow")
    assert data.meant(prompts, known) == [1, 2, 3, 5]


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


def test_each_subject_has_a_skin_tone_that_is_held_out() -> None:
    def skins(label: str, code: str) -> list[dict[str, object]]:
        pairs = zip(captions.TONES, range(1, 6), strict=True)
        both = {"label": f"{label}: two tones", "hexcode": f"{code}-9", "tone": [1, 2]}
        return [
            *({"label": f"{label}: {t}", "hexcode": f"{code}-{n}", "tone": n} for t, n in pairs),
            both,
        ]

    emoji = [
        entry(f"hand {n}", f"1F{n:03X}", skins=skins(f"hand {n}", f"1F{n:03X}")) for n in range(60)
    ]
    chosen = data.concepts(emoji[:59], [shot(str(one["hexcode"])) for one in emoji])
    found = data.toned(emoji, chosen)
    assert len(found) == 58 * 5  # neither one that is held out, nor one that is not chosen
    assert not any(one.code.startswith(chosen[data.HELD_FIRST].code) for one in found)
    held = [[c.weight == 0 for c in found[at : at + 5]] for at in range(0, len(found), 5)]
    assert all(sum(tones) == 1 for tones in held)
    assert all(one != other for one, other in itertools.pairwise(held))
    assert found[0].captions[0] == "hand 0 light skin tone"
    assert {"hand 0 with light skin tone", "light skinned hand 0"} <= set(found[0].captions)


def test_a_sprite_is_composited_on_white_and_scaled() -> None:
    assert archives.sprite(png((0, 0, 0, 0))).min() == 255
    half = archives.sprite(png((255, 0, 0, 128), side=128))
    assert half.shape == (3, 64, 64)
    assert half[0].min() == 255 and abs(int(half[1, 5, 5]) - 127) <= 1


CIRCLE = b"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8">
<circle cx="4" cy="4" r="4" fill="#00ff00"/></svg>"""


def test_only_the_vendors_own_folder_is_read(tmp_path: Path) -> None:
    archive = tmp_path / "pictures.tgz"
    red = png((255, 0, 0, 255))
    pack(
        archive,
        {
            "img/google/64/00a9-fe0f.png": red,
            "img/other/64/2a.png": red,
            "img/google/sheet.png": red,
            "img/google/64/logo.png": red,
        },
    )
    assert list(archives.sprites(archive, "img/google/64")) == [(0xA9,)]


def test_a_drawing_is_rendered_on_white(tmp_path: Path) -> None:
    archive = tmp_path / "drawings.tgz"
    pack(archive, {"assets/1f600.svg": CIRCLE})
    picture = archives.sprites(archive, "assets")[(0x1F600,)]
    assert picture.shape == (3, 64, 64)
    assert picture[:, 32, 32].tolist() == [0, 255, 0] and picture[:, 0, 0].tolist() == [255] * 3


@pytest.fixture
def built(tmp_path: Path) -> data.Dataset:
    return _built(tmp_path)[0]


def _built(tmp_path: Path) -> tuple[data.Dataset, data.Dataset]:
    folder = tmp_path / "packages"
    folder.mkdir()
    index = json.dumps([shot("1F1"), shot("1F2")]).encode()
    red, blue = png((255, 0, 0, 255)), png((0, 0, 255, 255))
    pack(
        folder / "emoji-datasource-google-16.0.0.tgz",
        {
            "emoji.json": index,
            "img/google/64/1f1.png": red,
            "img/google/64/1f2.png": blue,
            "img/google/64/1f1-1f3ff.png": blue,
        },
    )
    pack(folder / "emoji-datasource-twitter-16.0.0.tgz", {"img/twitter/64/1f1.png": red})
    pack(folder / "lobehub-fluent-emoji-flat-1.1.0.tgz", {"assets/1f2.svg": CIRCLE})
    dark = {"label": "one: dark skin tone", "hexcode": "1F1-1F3FF", "tone": 5}
    names = json.dumps([entry("one", "1F1", skins=[dark]), entry("two", "1F2")]).encode()
    german = json.dumps([{**entry("eins", "1F1"), "tags": ["erste"]}]).encode()
    pack(folder / "emojibase-data-17.0.0.tgz", {"en/data.json": names, "de/data.json": german})
    return data.build(tmp_path)


def test_build_from_made_up_packages(built: data.Dataset, tmp_path: Path) -> None:
    assert [one.label for one in built.concepts] == ["one", "two"]
    assert built.pictures.shape == (4, 3, 64, 64) and built.pictures.dtype == torch.uint8
    assert built.concept.tolist() == [0, 0, 1, 1] and built.vendor.tolist() == [0, 1, 0, 2]
    assert np.array_equal(built.pictures[2, :, 0, 0], [0, 0, 255])
    assert [e["label"] for e in data.languages_of(tmp_path)["de"]] == ["eins"]


def test_subjects_in_skin_tones_are_a_set_of_their_own(tmp_path: Path) -> None:
    _, toned = _built(tmp_path)
    assert [one.label for one in toned.concepts] == ["one: dark skin tone"]
    assert toned.vendor.tolist() == [0] and np.array_equal(toned.pictures[0, :, 0, 0], [0, 0, 255])
    read = data.load(tmp_path, data.TONES)
    assert torch.equal(read.pictures, toned.pictures) and read.concepts == toned.concepts


def test_two_skin_tones_that_a_package_has_the_wrong_way_around_are_changed(
    tmp_path: Path,
) -> None:
    _built(tmp_path)
    dark, light = (CIRCLE.replace(b"#00ff00", each) for each in (b"#000000", b"#ffffff"))
    files = {"assets/1f1-1f3fc.svg": dark, "assets/1f1-1f3fd.svg": light, "assets/1f2.svg": CIRCLE}
    assert dark != light
    pack(tmp_path / "packages" / "lobehub-fluent-emoji-flat-1.1.0.tgz", files)
    shots = data.shots(tmp_path / "packages")["fluent"]
    tones = [shots[(0x1F1, tone)][:, 32, 32].tolist() for tone in (0x1F3FC, 0x1F3FD)]
    assert tones == [[255] * 3, [0] * 3] and (0x1F2,) in shots


def test_held_out_concepts_are_never_drawn() -> None:
    weight = data.shares([data.Concept(str(n), f"1F{n:03X}", (str(n),), 1.0) for n in range(80)])
    assert (weight == 0).nonzero().flatten().tolist() == [25, 75]


def test_names_of_other_languages_mean_the_english_one(built: data.Dataset, tmp_path: Path) -> None:
    texts = list(corpus.foreign(built.concepts, data.languages_of(tmp_path)))
    assert [(t.text, t.concept, t.pull) for t in texts] == [
        ("eins", 0, 1.0),
        ("erste", 0, 1.0),
        ("eins, erste", 0, 1.0),
    ]


def test_english_texts_mean_their_concept_and_no_held_frame_is_taught(
    built: data.Dataset,
) -> None:
    texts = list(corpus.english(built.concepts, random.Random(0)))
    sentences = [t for t in texts if t.concept is not None and t.pull == 1.0]
    assert len(sentences) == 24 and all("one" in t.text or "two" in t.text for t in sentences)
    asked = corpus.held(built.concepts, random.Random(0))
    assert not {text for text, _ in asked} & {t.text for t in texts}


def test_a_missing_training_set_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(errors.Error, match=r"run python -m worker\.gan\.data"):
        data.load(tmp_path)


def test_a_failed_fetch_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.Error, match="cannot fetch some-package@1"):
        archives.fetch("some-package@1", tmp_path / "packages")


def test_held_sentences_share_no_telling_word_with_those_of_training() -> None:
    little = {"a", "as", "for", "in", "me", "of", "the", "to", "we", "you"}
    held = {w for frame in corpus.HELD_FRAMES for w in re.findall(r"[a-z]+", frame)} - little
    assert len(held) >= 15 and not held & set(frames.words())


def test_words_that_may_stand_around_a_name_are_in_no_caption(built: data.Dataset) -> None:
    assert corpus.plain(built.concepts, ["one", "zebra", "##ing", "red", "über"]) == ["zebra"]
    sentence = frames.around("a rocket", random.Random(3), ["zebra"])
    assert "a rocket" in sentence
    told = [frames.around("x", random.Random(n), ["zebra"]) for n in range(50)]
    assert len(set(told)) > 40 and any("zebra" in text for text in told)
