"""Builds the training set: `python -m worker.gan.data --out data/emoji`. Two published
picture packages (Noto, Twemoji) and one of names, fetched by name and version; cached as
safetensors and JSON. The pictures are never part of this tree."""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
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
from worker.gan import captions
from worker.gan.conditioner import Conditioner
from worker.gan.networks import SIDE, VENDORS

PICTURES = {"noto": "google", "twemoji": "twitter"}  # vendor -> its name in the package
PICTURE_PACKAGE = "emoji-datasource-{}@16.0.0"
NAMES_PACKAGE = "emojibase-data@17.0.0"
SELDOM = (1, 8, 9)  # groups of the names package: people, symbols, flags
SHARE = {"noto": 1.0, "twemoji": 0.5}  # noto is what a prompt without a style gets
COMMON_TAG = 3  # a tag that more emoji share says too little on its own
_VARIANT = re.compile(r"facing right|^(?:family|kiss|couple with heart): |regional indicator")
_GENDER = re.compile(r"^(?:man|woman|men|women) (?P<rest>.+)$")


@dataclass(frozen=True, slots=True)
class Concept:
    """One emoji: its label, the captions that mean it, its picture file's name and how
    often it is drawn in training, beside 1 for the most wanted."""

    label: str
    captions: tuple[str, ...]
    file: str
    weight: float


@dataclass(frozen=True, slots=True)
class Dataset:
    """pictures uint8 [N, 3, 64, 64]; concept and vendor int64 [N]; text [M, 384] with one
    row for each caption; spans int64 [C, 2]: first row and count of each concept's
    captions; unseen [C, 384]: one wording of each that is never trained on; weight [N]:
    how often each picture is drawn."""

    pictures: Tensor
    concept: Tensor
    vendor: Tensor
    text: Tensor
    spans: Tensor
    unseen: Tensor
    weight: Tensor
    labels: tuple[str, ...]


def fetch(package: str, folder: Path) -> Path:
    """Downloads a package's archive with the ordinary client, once, and returns its path."""
    archive = folder / (package.replace("@", "-") + ".tgz")
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
        found.append(Concept(entry["label"], tuple(texts), source["image"], weight(entry)))
    return found


def weight(entry: dict[str, Any]) -> float:
    """People and signs count half, and so do flags of the lands people ask for least: the
    capacity goes to what is asked for."""
    land = entry["label"].removeprefix("flag: ")
    common = entry["group"] not in SELDOM or land in captions.PEOPLES
    return 1.0 if common else 0.5


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


def sprite(data: bytes) -> NDArray[np.uint8]:
    """A picture file as uint8 [3, 64, 64], composited on white."""
    with Image.open(io.BytesIO(data)) as file:
        picture = file.convert("RGBA")
    if picture.size != (SIDE, SIDE):
        picture = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    white = Image.new("RGBA", picture.size, "white")
    flat = Image.alpha_composite(white, picture).convert("RGB")
    return np.ascontiguousarray(np.asarray(flat, dtype=np.uint8).transpose(2, 0, 1))


def sprites(archive: Path, vendor: str) -> dict[str, NDArray[np.uint8]]:
    """The vendor's own pictures by file name. Only that vendor's folder is opened."""
    folder = f"package/img/{PICTURES[vendor]}/64/"
    found = {}
    with tarfile.open(archive) as bundle:
        for member in bundle:
            if member.name.startswith(folder) and member.name.endswith(".png"):
                file = bundle.extractfile(member)
                if file is not None:
                    found[member.name.removeprefix(folder)] = sprite(file.read())
    return found


def assemble(
    chosen: Sequence[Concept], pictures: dict[str, dict[str, NDArray[np.uint8]]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures [N, 3, 64, 64], concept [N] and vendor [N]; `pictures` is vendor -> file
    name -> picture. A concept that a vendor has not drawn has one picture less."""
    rows = [
        (pictures[vendor][concept.file], number, VENDORS.index(vendor))
        for number, concept in enumerate(chosen)
        for vendor in VENDORS
        if concept.file in pictures[vendor]
    ]
    stack, concept, vendor = zip(*rows, strict=True)
    return torch.from_numpy(np.stack(stack)), torch.tensor(concept), torch.tensor(vendor)


def weights(chosen: Sequence[Concept], concept: Tensor, vendor: Tensor) -> Tensor:
    """How often each picture [N] is drawn: its concept's weight times its vendor's share."""
    wanted = torch.tensor([one.weight for one in chosen])
    return wanted[concept] * torch.tensor([SHARE[name] for name in VENDORS])[vendor]


def build(out: Path) -> Dataset:
    """Fetches, cuts, words, embeds and saves; returns what `load` reads back."""
    archives = {v: fetch(PICTURE_PACKAGE.format(n), out / "packages") for v, n in PICTURES.items()}
    emoji = json.loads(read(fetch(NAMES_PACKAGE, out / "packages"), "en/data.json"))
    chosen = concepts(emoji, json.loads(read(archives["noto"], "emoji.json")))
    shots = {vendor: sprites(archive, vendor) for vendor, archive in archives.items()}
    pictures, concept, vendor = assemble(chosen, shots)
    encoder = Conditioner()
    counts = torch.tensor([len(one.captions) for one in chosen])
    texts = [text for one in chosen for text in one.captions]
    unseen = [captions.PARAPHRASE.format(captions.names(one.label, ())[0]) for one in chosen]
    save_file(
        {
            "pictures": pictures,
            "concept": concept,
            "vendor": vendor,
            "text": encoder.encode(texts),
            "spans": torch.stack([counts.cumsum(0) - counts, counts], 1),
            "unseen": encoder.encode(unseen),
            "weight": weights(chosen, concept, vendor),
        },
        out / "emoji.safetensors",
    )
    (out / "emoji.json").write_text(json.dumps([asdict(one) for one in chosen], indent=1))
    return load(out)


def load(folder: Path) -> Dataset:
    """What `build` saved in `folder`; raises `errors.Error` when it is not there."""
    try:
        tensors = load_file(folder / "emoji.safetensors")
        listed = json.loads((folder / "emoji.json").read_text())
    except OSError as problem:
        raise errors.Error(
            f"no training set in {folder}: run python -m worker.gan.data --out {folder}"
        ) from problem
    return Dataset(**tensors, labels=tuple(entry["label"] for entry in listed))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Build the emoji training set.")
    parser.add_argument("--out", type=Path, default=Path("data/emoji"), help="folder to fill")
    torch.set_num_threads(1)
    made = build(parser.parse_args(arguments).out)
    print(f"{len(made.labels)} concepts, {len(made.pictures)} pictures, {len(made.text)} captions")


if __name__ == "__main__":
    main()
