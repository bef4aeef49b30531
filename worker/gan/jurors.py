"""The hands that only judge: five sets of pictures, fetched by name and version. For evaluation
alone, never part of this tree, and no generator sees them."""

from __future__ import annotations

import json
import random
import re
import tarfile
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from worker.gan import archives, colours, data, dyes
from worker.gan.data import Concept
from worker.gan.networks import SIDE

OPENMOJI = "openmoji@17.0.0"
ICONS = (  # one JSON file each: a drawing's name -> the inside of its SVG
    "@iconify-json/emojione@1.2.3",
    "@iconify-json/emojione-v1@1.2.3",
    "@iconify-json/fxemoji@1.2.2",
    "@iconify-json/streamline-emojis@1.2.4",
)
FOLDER = "color/svg"
OUTLINES = (1.0, 0.5, 0.1)  # of their width in OpenMoji: the other vendors draw none
OFTEN = 0.5  # how often one of those three is shown, beside 1 for another hand's picture
DYES, DYED = 3, 0.2  # colours that a drawing is dyed in, and how often each is shown
MARGIN = 0.03  # of the picture's side, around what is drawn
SHORT = ("cldr", "joypixels", "emojibase", "iamcal", "github")  # short names, the best first
_WIDTH = re.compile(rb'stroke-width="([\d.]+)"')
_NUMBERED, _LAND = re.compile(r"-\d$"), re.compile(r"^flag-for-")
_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
    'viewBox="0 0 {} {}">{}</svg>'
)


@dataclass(frozen=True, slots=True)
class Jury:
    """pictures uint8 [N, 3, 64, 64]; concept int64 [N]; colour int64 [N]: the number of the paint
    it is dyed in, from 1, or 0 as it was drawn; told bool [N]: whether its colours tell what it
    shows, as a dye and a skin tone do; weight [N]: how often each is shown."""

    pictures: Tensor
    concept: Tensor
    colour: Tensor
    told: Tensor
    weight: Tensor


def jury(folder: Path, chosen: Sequence[Concept], *, seed: int = 0) -> Jury:
    """Every hand's pictures of the chosen concepts, cut to what is drawn; OpenMoji's with
    outlines of each width; some of each in colours that chance picks, and people in the skin tones
    that a hand did not draw. folder: where `worker.gan.data` built its set."""
    drawings = list(_drawings(folder / "packages", chosen))
    done = {(hand, number) for hand, _, number in drawings}
    dyeable, toned = set(dyes.dyeable(chosen)), dyes.in_tones(chosen)
    chance, rows = random.Random(seed), []
    for hand, svg, number in drawings:
        shares, weight = (OUTLINES, OFTEN) if hand == OPENMOJI else ((1.0,), 1.0)
        forms = [outlined(svg, share) for share in shares]
        pictures = [filled(form) for form in forms]
        told = number in toned.tones
        rows += [(picture, number, 0, told, weight) for picture in pictures]
        for paint in chance.sample(range(len(colours.PAINTS)), DYES * (number in dyeable)):
            shade = dyes.varied(list(colours.PAINTS.values())[paint], chance)
            form = dyes.dyed(forms[-1], pictures[-1], shade)
            rows.append((filled(form), number, paint + 1, True, DYED))
        for tone, other in toned.of.get(number, ()):
            if hand != OPENMOJI and (hand, other) not in done:
                skinned = dyes.skinned(svg, hand, dyes.varied(dyes.TONES[tone], chance))
                rows += [(filled(skinned), other, 0, True, 1.0)] if skinned else []
    drawn, *rest = zip(*rows, strict=True)
    return Jury(torch.from_numpy(np.stack(drawn)), *map(torch.tensor, rest))


def _drawings(packages: Path, chosen: Sequence[Concept]) -> Iterator[tuple[str, bytes, int]]:
    """Hand, SVG file and concept."""
    for svg, number in _openmoji(packages, chosen):
        yield OPENMOJI, svg, number
    called = names(packages, chosen)
    for package in ICONS:
        icons = json.loads(archives.read(archives.fetch(package, packages), "icons.json"))
        for svg, number in matched(icons, called):
            yield package, svg, number


def openmoji(folder: Path, chosen: Sequence[Concept]) -> tuple[Tensor, Tensor]:
    """OpenMoji's pictures uint8 [N, 3, 64, 64] as they are published, and the concept of each."""
    found = _openmoji(folder / "packages", chosen)
    rows = [(archives.sprite(archives.drawn(svg)), number) for svg, number in found]
    drawn, concept = zip(*rows, strict=True)
    return torch.from_numpy(np.stack(drawn)), torch.tensor(concept)


def _openmoji(packages: Path, chosen: Sequence[Concept]) -> Iterator[tuple[bytes, int]]:
    wanted = {archives.points(concept.code): number for number, concept in enumerate(chosen)}
    with tarfile.open(archives.fetch(OPENMOJI, packages)) as bundle:
        for member in bundle:
            path = Path(member.name)
            if str(path.parent) != f"package/{FOLDER}" or not archives.CODED.fullmatch(path.name):
                continue
            number, file = wanted.get(archives.points(path.stem)), bundle.extractfile(member)
            if number is not None and file is not None:
                yield file.read(), number


def names(packages: Path, chosen: Sequence[Concept]) -> dict[str, int]:
    """What drawings of the concepts are called, as `key` writes it: their labels, then the names
    of their characters, then short names that are in use. Who comes first has the name."""
    archive = archives.fetch(data.NAMES_PACKAGE, packages)
    short = [json.loads(archives.read(archive, f"en/shortcodes/{each}.json")) for each in SHORT]
    found: dict[str, int] = {}
    for number, concept in enumerate(chosen):
        found.setdefault(key(concept.label), number)
    for number, concept in enumerate(chosen):
        character = archives.points(concept.code)
        if len(character) == 1:
            found.setdefault(key(unicodedata.name(chr(character[0]), "")), number)
    for known in short:
        for number, concept in enumerate(chosen):
            given = known.get(concept.code, [])
            for name in [given] if isinstance(given, str) else given:
                found.setdefault(key(name), number)
    found.pop("", None)
    return found


def key(name: str) -> str:
    """A name's letters and digits alone, without case and accents."""
    plain = unicodedata.normalize("NFKD", name.replace("&", "and")).casefold()
    return re.sub(r"[^a-z0-9]", "", plain)


def matched(icons: Mapping[str, Any], called: Mapping[str, int]) -> Iterator[tuple[bytes, int]]:
    """The SVG files of a set of icons that are called like a concept, or have an alias that is,
    and its number. A number behind a name is a variant."""
    aliases: dict[str, list[str]] = {}
    for alias, entry in icons.get("aliases", {}).items():
        aliases.setdefault(entry["parent"], []).append(alias)
    for name, entry in icons["icons"].items():
        asked = [key(form) for each in (name, *aliases.get(name, ())) for form in _forms(each)]
        number = next((called[form] for form in asked if form in called), None)
        if number is not None:
            size = (entry.get(side, icons.get(side, 16)) for side in ("width", "height"))
            yield _SVG.format(*size, entry["body"]).encode(), number


def _forms(name: str) -> tuple[str, ...]:
    return name, _NUMBERED.sub("", name), _LAND.sub("flag-", name), f"flag-{name}"


def outlined(svg: bytes, share: float) -> bytes:
    """A drawing whose lines have that share of their width."""
    return _WIDTH.sub(lambda m: b'stroke-width="%.3f"' % (float(m[1]) * share), svg)


def filled(svg: bytes) -> NDArray[np.uint8]:
    """A drawing as uint8 [3, 64, 64], cut to what is drawn, as other vendors fill theirs."""
    large = archives.sprite(archives.drawn(svg, 2 * SIDE), 2 * SIDE)
    inked = np.argwhere((large < 250).any(0))
    if not len(inked):
        return archives.sprite(archives.drawn(svg))
    (top, left), (bottom, right) = inked.min(0), inked.max(0) + 1
    side = max(bottom - top, right - left) * (1 + 2 * MARGIN)
    x, y = (left + right - side) / 2, (top + bottom - side) / 2
    whole = Image.fromarray(255 - large.transpose(1, 2, 0))
    size, box = (SIDE, SIDE), (x, y, x + side, y + side)
    cut = whole.transform(size, Image.Transform.EXTENT, box, Image.Resampling.BICUBIC)
    return np.ascontiguousarray(255 - np.asarray(cut).transpose(2, 0, 1))
