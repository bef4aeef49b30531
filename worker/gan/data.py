"""Builds the training set: `python -m worker.gan.data --out data/emoji`. Published picture
packages (Noto, Twemoji, Fluent) and one of names in many languages, fetched by name and
version; cached as safetensors and JSON. The pictures are never part of this tree."""

from __future__ import annotations

import argparse
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from promptmill import errors
from worker import command
from worker.gan import archives, captions, common
from worker.gan.networks import VENDORS

PICTURES = {"noto": "google", "twemoji": "twitter"}  # vendor -> its name in the package
PICTURE_PACKAGE = "emoji-datasource-{}@16.0.0"
FLUENT_PACKAGE = "@lobehub/fluent-emoji-flat@1.1.0"  # Microsoft's flat drawings, as SVG
SWAPPED = {0x1F3FC: 0x1F3FD, 0x1F3FD: 0x1F3FC}  # skin tones whose files it has the wrong way around
NAMES_PACKAGE = "emojibase-data@17.0.0"
SELDOM = (1, 8, 9)  # groups of the names package: people, symbols, flags
SHARE = {"noto": 1.0, "twemoji": 0.7, "fluent": 0.7}
HELD_EVERY, HELD_FIRST = 50, 25  # concepts that training never sees: 25, 75, 125, ...
SETS = EMOJI, TONES = "emoji", "tones"  # all concepts, and those of them that take a skin tone
TONED = 0.3  # weight of a subject in a tone
COMMON_TAG = 3  # a tag that more emoji share says too little on its own
_VARIANT = re.compile(r"facing right|^(?:family|kiss|couple with heart): |regional indicator")
_GENDER = re.compile(r"^(?:man|woman|men|women) (?P<rest>.+)$")

Shots = Mapping[tuple[int, ...], NDArray[np.uint8]]  # code points -> picture


@dataclass(frozen=True, slots=True)
class Concept:
    """One emoji: its label, its code points in hexadecimal ("1F1EB-1F1F7"), the English
    captions that mean it and how often it is drawn in training, beside 1 for the most
    wanted; 0 for a subject and a skin tone that training never sees together."""

    label: str
    code: str
    captions: tuple[str, ...]
    weight: float


@dataclass(frozen=True, slots=True)
class Dataset:
    """pictures uint8 [N, 3, 64, 64]; concept and vendor int64 [N]; weight [N]: how often
    each picture is drawn, 0 for the concepts that training never sees."""

    pictures: Tensor
    concept: Tensor
    vendor: Tensor
    weight: Tensor
    concepts: tuple[Concept, ...]


def concepts(emoji: Sequence[dict[str, Any]], index: Sequence[dict[str, Any]]) -> list[Concept]:
    """The emoji to learn: `emoji` is the names package's list, `index` the picture
    package's. Families, mirrored figures and man/woman variants of a neutral
    figure are left out: they would take most of the capacity for little that differs."""
    files = {entry["unified"].upper(): entry for entry in index}
    files |= {e["non_qualified"].upper(): e for e in index if e.get("non_qualified")}
    rare = frozenset(_rare_tags(emoji))
    neutral = {entry["label"] for entry in emoji}
    found = []
    for entry in emoji:
        source = files.get(entry["hexcode"].upper())
        if source is None or not _wanted(entry, neutral):
            continue
        aliases = source.get("short_names", [])
        texts = captions.captions(entry["label"], aliases, entry.get("tags", []), rare=rare)
        found.append(Concept(entry["label"], entry["hexcode"], tuple(texts), weight(entry)))
    return found


def toned(emoji: Sequence[dict[str, Any]], chosen: Sequence[Concept]) -> list[Concept]:
    """The chosen concepts in each of five skin tones, where there is one. Of each subject one
    tone is held out, of neighbours different ones; held-out concepts have no place here."""
    taught = {one.code for n, one in enumerate(chosen) if n % HELD_EVERY != HELD_FIRST}
    subjects = [entry for entry in emoji if entry["hexcode"] in taught and entry.get("skins")]
    found = []
    for number, entry in enumerate(subjects):
        for skin in entry["skins"]:
            if not isinstance(skin["tone"], int):
                continue  # of two people, each has a tone
            tone = captions.TONES[skin["tone"] - 1]
            aliases, tags = captions.toned(entry["label"], tone), entry.get("tags", [])
            texts = captions.captions(skin["label"], aliases, tags, rare=frozenset())
            held = (number + skin["tone"]) % len(captions.TONES) == 0
            weight = 0.0 if held else TONED
            found.append(Concept(skin["label"], skin["hexcode"], tuple(texts), weight))
    return found


def meant(prompts: Sequence[str], known: Sequence[Concept]) -> list[int]:
    """Which concept each prompt means: the one of that name, or of that caption."""
    found = []
    for prompt in prompts:
        name = prompt.removeprefix("a ").lower()
        fitting = [
            (one.label.lower() != name, one.captions[0].lower() != name, number)
            for number, one in enumerate(known)
            if name in {caption.lower() for caption in (one.label, *one.captions)}
        ]
        found.append(min(fitting)[-1])
    return found


def weight(entry: dict[str, Any]) -> float:
    """What people ask for most counts full, the rest half, and people, signs and flags that
    are not among it less: the capacity goes to what is asked for."""
    if entry["label"] in common.WANTED:
        return 1.0
    return 0.3 if entry["group"] in SELDOM else 0.5


def _rare_tags(emoji: Sequence[dict[str, Any]]) -> Iterator[str]:
    counts = Counter(tag for entry in emoji for tag in entry.get("tags", []))
    return (tag for tag, count in counts.items() if count <= COMMON_TAG and len(tag) > 2)


def _wanted(entry: dict[str, Any], labels: set[str]) -> bool:
    if entry.get("group") in (None, 2) or _VARIANT.search(entry["label"]):
        return False
    gender = _GENDER.match(entry["label"])
    if gender is None:
        return True
    rest = gender["rest"]
    return not {rest, f"person {rest}", f"people {rest}"} & labels


def shots(packages: Path) -> dict[str, Shots]:
    """Every vendor's pictures by code points. Only those vendors' folders are opened."""
    found: dict[str, Shots] = {
        vendor: archives.sprites(
            archives.fetch(PICTURE_PACKAGE.format(name), packages), f"img/{name}/64"
        )
        for vendor, name in PICTURES.items()
    }
    fluent = archives.sprites(archives.fetch(FLUENT_PACKAGE, packages), "assets")
    right = {tuple(SWAPPED.get(n, n) for n in points): shot for points, shot in fluent.items()}
    return found | {"fluent": right}


def assemble(
    chosen: Sequence[Concept], pictures: Mapping[str, Shots]
) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures [N, 3, 64, 64], concept [N] and vendor [N]. A concept that a vendor has not
    drawn has one picture less."""
    rows = [
        (pictures[vendor][_points(concept)], number, VENDORS.index(vendor))
        for number, concept in enumerate(chosen)
        for vendor in VENDORS
        if _points(concept) in pictures[vendor]
    ]
    stack, concept, vendor = zip(*rows, strict=True)
    return torch.from_numpy(np.stack(stack)), torch.tensor(concept), torch.tensor(vendor)


def shares(chosen: Sequence[Concept]) -> Tensor:
    """How often each concept [C] is drawn: as it weighs, never a held-out one."""
    wanted = torch.tensor([one.weight for one in chosen])
    wanted[HELD_FIRST::HELD_EVERY] = 0
    return wanted


def build(out: Path) -> tuple[Dataset, Dataset]:
    """Fetches, cuts, words and saves both sets; returns what `load` reads back."""
    packages = out / "packages"
    names = archives.fetch(NAMES_PACKAGE, packages)
    pictured = archives.fetch(PICTURE_PACKAGE.format(PICTURES[VENDORS[0]]), packages)
    emoji = json.loads(archives.read(names, "en/data.json"))
    chosen = concepts(emoji, json.loads(archives.read(pictured, "emoji.json")))
    found = shots(packages)
    _save(out, EMOJI, chosen, found, shares(chosen))
    in_tones = [
        one for one in toned(emoji, chosen) if any(_points(one) in own for own in found.values())
    ]
    _save(out, TONES, in_tones, found, torch.tensor([one.weight for one in in_tones]))
    (out / "languages.json").write_text(json.dumps(dict(languages(names)), ensure_ascii=False))
    return load(out), load(out, TONES)


def _save(
    out: Path, name: str, chosen: Sequence[Concept], found: Mapping[str, Shots], wanted: Tensor
) -> None:
    """wanted [C]: how often each concept is drawn. A picture's weight is its concept's, times
    its vendor's share."""
    pictures, concept, vendor = assemble(chosen, found)
    share = torch.tensor([SHARE[each] for each in VENDORS])
    tensors = {
        "pictures": pictures,
        "concept": concept,
        "vendor": vendor,
        "weight": wanted[concept] * share[vendor],
    }
    save_file(tensors, out / f"{name}.safetensors")
    (out / f"{name}.json").write_text(json.dumps([asdict(one) for one in chosen], indent=1))


def _points(concept: Concept) -> tuple[int, ...]:
    return archives.points(concept.code)


def languages(archive: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The names package's languages other than English: code points, name and tags."""
    with tarfile.open(archive) as bundle:
        for member in bundle:
            path = Path(member.name)
            if path.name != "data.json" or path.parent.name == "en":
                continue
            file = bundle.extractfile(member)
            if file is not None:
                entries = json.loads(file.read())
                kept = ("hexcode", "label", "tags")
                yield path.parent.name, [{k: e.get(k) for k in kept} for e in entries]


def load(folder: Path, name: str = EMOJI) -> Dataset:
    """The set that `build` saved in `folder`; raises `errors.Error` when it is not there."""
    try:
        return Dataset(
            **load_file(folder / f"{name}.safetensors"), concepts=concepts_of(folder, name)
        )
    except OSError as problem:
        raise _missing(folder) from problem


def concepts_of(folder: Path, name: str = EMOJI) -> tuple[Concept, ...]:
    """The concepts that `build` saved; raises `errors.Error` when they are not there."""
    try:
        listed = json.loads((folder / f"{name}.json").read_text())
    except OSError as problem:
        raise _missing(folder) from problem
    return tuple(Concept(**{**entry, "captions": tuple(entry["captions"])}) for entry in listed)


def languages_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The other languages that `build` saved: language -> entries."""
    found: dict[str, list[dict[str, Any]]] = json.loads((folder / "languages.json").read_text())
    return found


def _missing(folder: Path) -> errors.Error:
    return errors.Error(
        f"no training set in {folder}: run python -m worker.gan.data --out {folder}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Build the emoji training set.")
    parser.add_argument("--out", type=Path, default=Path("data/emoji"), help="folder to fill")
    torch.set_num_threads(1)
    for name, made in zip(SETS, build(parser.parse_args(arguments).out), strict=True):
        print(f"{name}: {len(made.concepts)} concepts, {len(made.pictures)} pictures")


if __name__ == "__main__":
    command.run(main)
