"""From the published names and tags of an emoji to the captions a person might type, and
from a typed prompt to its plain text and vendor. Pure functions of strings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from worker.gan.inputs import VENDORS

TEMPLATES = (
    "{}",
    "a {}",
    "{} emoji",
    "an emoji of {}",
    "a picture of a {}",
    "{} icon",
    "{} on a white background",
    "a cute {}",
)

PEOPLES = {
    "Argentina": "Argentinian", "Australia": "Australian", "Austria": "Austrian",
    "Belgium": "Belgian", "Brazil": "Brazilian", "Canada": "Canadian", "Chile": "Chilean",
    "China": "Chinese", "Colombia": "Colombian", "Czechia": "Czech", "Denmark": "Danish",
    "Egypt": "Egyptian", "England": "English", "Finland": "Finnish", "France": "French",
    "Germany": "German", "Greece": "Greek", "Hungary": "Hungarian", "Iceland": "Icelandic",
    "India": "Indian", "Indonesia": "Indonesian", "Ireland": "Irish", "Israel": "Israeli",
    "Italy": "Italian", "Jamaica": "Jamaican", "Japan": "Japanese", "Kenya": "Kenyan",
    "Mexico": "Mexican", "Morocco": "Moroccan", "Netherlands": "Dutch",
    "New Zealand": "New Zealand", "Nigeria": "Nigerian", "Norway": "Norwegian",
    "Pakistan": "Pakistani", "Poland": "Polish", "Portugal": "Portuguese",
    "Romania": "Romanian", "Scotland": "Scottish", "Serbia": "Serbian",
    "South Africa": "South African", "South Korea": "Korean", "Spain": "Spanish",
    "Sweden": "Swedish", "Switzerland": "Swiss", "Thailand": "Thai", "Türkiye": "Turkish",
    "Ukraine": "Ukrainian", "United Kingdom": "British", "United States": "American",
    "Vietnam": "Vietnamese", "Wales": "Welsh",
}  # fmt: skip

FLAG = "flag of "  # the first of a flag's names, before its land
TONES = tuple(
    f"{each} skin tone" for each in ("light", "medium-light", "medium", "medium-dark", "dark")
)

_CUE = re.compile(
    rf"(?<![\s,;])[\s,;]*\b(?:in\s+(?:the\s+)?)?(?P<vendor>{'|'.join(VENDORS)})\b(?:[\s-]+emoji)?(?:[\s-]+style)?",
    re.IGNORECASE,
)


def names(label: str, aliases: Iterable[str]) -> list[str]:
    """What the emoji is called, best name first: the label, for a flag its usual wordings,
    then short names that add a word."""
    if label.startswith("flag: "):
        land = label.removeprefix("flag: ")
        people = [f"{PEOPLES[land]} flag"] if land in PEOPLES else []
        return [f"{FLAG}{land}", f"{land} flag", *people]
    found = [label.replace(": ", " ")]
    for alias in aliases:
        words = alias.replace("_", " ").replace("-", " ").strip("+ ")
        if len(words) > 2 and words.isascii() and words.lower() not in " ".join(found).lower():
            found.append(words)
    return found


def toned(label: str, tone: str) -> list[str]:
    """Other wordings for something of that label in a skin tone."""
    called = names(label, ())[0]
    return [f"{called} with {tone}", f"{tone.removesuffix(' skin tone')} skinned {called}"]


def captions(
    label: str, aliases: Iterable[str], tags: Sequence[str], *, rare: frozenset[str]
) -> list[str]:
    """Distinct captions, the label first. A tag stands alone only if few emoji share it
    (`rare`), else beside the label, since "face" alone names a hundred pictures."""
    called = names(label, aliases)
    found = [template.format(name) for name in called for template in TEMPLATES]
    found += [tag for tag in tags if tag in rare]
    found += [f"{called[0]}, {tag}" for tag in tags[:6]]
    if tags:
        found.append(f"{called[0]}, {', '.join(tags[:4])}")
    return list(dict.fromkeys(found))


def called(texts: Sequence[str]) -> list[str]:
    """What among the captions of an emoji stands for it alone, its names first: neither a template
    around a name nor a tag beside one."""
    known = set(texts)
    names = [text for text in texts if known.issuperset(each.format(text) for each in TEMPLATES)]
    framed = {each.format(name) for name in names for each in TEMPLATES} - set(names)
    return [text for text in texts if text not in framed and not text.startswith(f"{names[0]}, ")]


def parse(prompt: str) -> tuple[str, int | None]:
    """The prompt without its style cue, and the vendor's index: the last vendor named, or
    None. "rocket, twemoji style" is ("rocket", 1)."""
    cues = [match["vendor"].lower() for match in _CUE.finditer(prompt)]
    if not cues:
        return prompt, None
    plain = " ".join(_CUE.sub(" ", prompt).split()).strip(" ,;")
    return plain or prompt, VENDORS.index(cues[-1])
