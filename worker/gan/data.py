"""Builds the training set: `python -m worker.gan.data --out data/emoji`. Published picture
packages (Noto, Twemoji, Fluent) and one of names in many languages, fetched by name and
version; cached as safetensors and JSON. The pictures are never part of this tree."""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from promptmill import errors
from worker.gan import captions, common
from worker.gan.networks import SIDE, VENDORS

PICTURES = {"noto": "google", "twemoji": "twitter"}  # vendor -> its name in the package
PICTURE_PACKAGE = "emoji-datasource-{}@16.0.0"
FLUENT_PACKAGE = "@lobehub/fluent-emoji-flat@1.1.0"  # Microsoft's flat drawings, as SVG
NAMES_PACKAGE = "emojibase-data@17.0.0"
SELDOM = (1, 8, 9)  # groups of the names package: people, symbols, flags
SHARE = {"noto": 1.0, "twemoji": 0.7, "fluent": 0.7}
HELD_EVERY, HELD_FIRST = 50, 25  # concepts that training never sees: 25, 75, 125, ...
COMMON_TAG = 3  # a tag that more emoji share says too little on its own
CODED = re.compile(r"[0-9a-fA-F]{2,6}(?:-[0-9a-fA-F]{2,6})*\.(?:png|svg)")  # a file's name
_VARIANT = re.compile(r"facing right|^(?:family|kiss|couple with heart): |regional indicator")
_GENDER = re.compile(r"^(?:man|woman|men|women) (?P<rest>.+)$")
_VARIATION = 0xFE0F

Shots = Mapping[tuple[int, ...], NDArray[np.uint8]]  # code points -> picture


@dataclass(frozen=True, slots=True)
class Concept:
    """One emoji: its label, its code points in hexadecimal ("1F1EB-1F1F7"), the English
    captions that mean it and how often it is drawn in training, beside 1 for the most
    wanted."""

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


def fetch(package: str, folder: Path) -> Path:
    """Downloads a package's archive with the ordinary client, once, and returns its path."""
    name, _, version = package.rpartition("@")
    archive = folder / f"{name.strip('@').replace('/', '-')}-{version}.tgz"
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(["npm", "pack", package], cwd=folder, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as problem:
            raise errors.Error(f"cannot fetch {package}: npm pack failed ({problem})") from problem
    return archive


def read(archive: Path, member: str) -> bytes:
    """One file of a package archive."""
    with tarfile.open(archive) as bundle:
        file = bundle.extractfile(f"package/{member}")
        if file is None:
            raise errors.Error(f"{archive} has no file {member}: delete it and build again")
        return file.read()


def concepts(emoji: Sequence[dict[str, Any]], index: Sequence[dict[str, Any]]) -> list[Concept]:
    """The emoji to learn: `emoji` is the names package's list, `index` the picture
    package's. Skin tones, families, mirrored figures and man/woman variants of a neutral
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


def sprite(data: bytes, side: int = SIDE) -> NDArray[np.uint8]:
    """A picture file as uint8 [3, side, side], composited on white."""
    with Image.open(io.BytesIO(data)) as file:
        picture = file.convert("RGBA")
    if picture.size != (side, side):
        picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    white = Image.new("RGBA", picture.size, "white")
    flat = Image.alpha_composite(white, picture).convert("RGB")
    return np.ascontiguousarray(np.asarray(flat, dtype=np.uint8).transpose(2, 0, 1))


def points(code: str) -> tuple[int, ...]:
    """Code points of a name like "1F1EB-1F1F7", without variation selectors, which
    packages add or leave out as they like."""
    return tuple(p for p in (int(part, 16) for part in code.split("-")) if p != _VARIATION)


def sprites(archive: Path, folder: str) -> dict[tuple[int, ...], NDArray[np.uint8]]:
    """The pictures of one folder of a package, PNG or SVG, by code points."""
    found = {}
    with tarfile.open(archive) as bundle:
        for member in bundle:
            path = Path(member.name)
            if str(path.parent) != f"package/{folder}" or not CODED.fullmatch(path.name):
                continue
            file = bundle.extractfile(member)
            if file is not None:
                data = file.read()
                png = drawn(data) if path.suffix == ".svg" else data
                found[points(path.stem)] = sprite(png)
    return found


def drawn(svg: bytes, side: int = SIDE) -> bytes:
    """An SVG file as a PNG of that many pixels each way."""
    import resvg_py

    return bytes(resvg_py.svg_to_bytes(svg_string=svg.decode(), width=side, height=side))


def shots(packages: Path) -> dict[str, Shots]:
    """Every vendor's pictures by code points. Only those vendors' folders are opened."""
    found: dict[str, Shots] = {
        vendor: sprites(fetch(PICTURE_PACKAGE.format(name), packages), f"img/{name}/64")
        for vendor, name in PICTURES.items()
    }
    return found | {"fluent": sprites(fetch(FLUENT_PACKAGE, packages), "assets")}


def assemble(
    chosen: Sequence[Concept], pictures: Mapping[str, Shots]
) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures [N, 3, 64, 64], concept [N] and vendor [N]. A concept that a vendor has not
    drawn has one picture less."""
    rows = [
        (pictures[vendor][points(concept.code)], number, VENDORS.index(vendor))
        for number, concept in enumerate(chosen)
        for vendor in VENDORS
        if points(concept.code) in pictures[vendor]
    ]
    stack, concept, vendor = zip(*rows, strict=True)
    return torch.from_numpy(np.stack(stack)), torch.tensor(concept), torch.tensor(vendor)


def weights(chosen: Sequence[Concept], concept: Tensor, vendor: Tensor) -> Tensor:
    """How often each picture [N] is drawn: its concept's weight times its vendor's share,
    never for a held-out concept."""
    wanted = torch.tensor([one.weight for one in chosen])
    wanted[HELD_FIRST::HELD_EVERY] = 0
    return wanted[concept] * torch.tensor([SHARE[name] for name in VENDORS])[vendor]


def build(out: Path) -> Dataset:
    """Fetches, cuts, words and saves; returns what `load` reads back."""
    packages = out / "packages"
    names = fetch(NAMES_PACKAGE, packages)
    index = json.loads(read(fetch(PICTURE_PACKAGE.format("google"), packages), "emoji.json"))
    chosen = concepts(json.loads(read(names, "en/data.json")), index)
    pictures, concept, vendor = assemble(chosen, shots(packages))
    tensors = {
        "pictures": pictures,
        "concept": concept,
        "vendor": vendor,
        "weight": weights(chosen, concept, vendor),
    }
    save_file(tensors, out / "emoji.safetensors")
    (out / "emoji.json").write_text(json.dumps([asdict(one) for one in chosen], indent=1))
    (out / "languages.json").write_text(json.dumps(dict(languages(names)), ensure_ascii=False))
    return load(out)


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


def load(folder: Path) -> Dataset:
    """What `build` saved in `folder`; raises `errors.Error` when it is not there."""
    try:
        return Dataset(**load_file(folder / "emoji.safetensors"), concepts=concepts_of(folder))
    except OSError as problem:
        raise _missing(folder) from problem


def concepts_of(folder: Path) -> tuple[Concept, ...]:
    """The concepts that `build` saved; raises `errors.Error` when they are not there."""
    try:
        listed = json.loads((folder / "emoji.json").read_text())
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
    made = build(parser.parse_args(arguments).out)
    print(f"{len(made.concepts)} concepts, {len(made.pictures)} pictures")


if __name__ == "__main__":
    main()
