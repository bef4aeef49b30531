"""What an English text is about: a thing and how it looks, before what follows about where and
with what it is. A few lists of words, no parser."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from worker.gan.words import ARTICLES, ATTRIBUTES, words

LINKS = frozenset({  # what comes before says what there is, what follows where and how
    "with", "without", "wearing", "holding", "in", "on", "at", "under", "above", "over", "near",
    "behind", "beside", "inside", "by", "from", "against", "among", "between", "across", "through",
    "into", "onto", "towards", "eating", "riding", "sitting", "standing", "next",
    "is", "are", "was", "were", "has", "have",
})  # fmt: skip
_DOING = frozenset({  # the same behind what is no word of looks: "a cat sleeping"
    "sleeping", "jumping", "flying", "running", "walking", "swimming", "playing", "drinking",
    "reading", "dancing", "looking", "lying", "climbing", "driving", "singing", "cooking",
    "smiling", "crying", "laughing", "waving", "hiding", "floating", "resting", "hugging",
    "chasing", "watching", "surfing", "growing", "blooming", "glowing", "falling", "for", "please",
})  # fmt: skip
_BEFORE = frozenset({*ARTICLES, *ATTRIBUTES,  # a thing, and leave it what it is
    "my", "your", "his", "her", "its", "our", "their", "this", "that", "some", "one", "two",
    "three", "four", "five", "six", "many", "grey", "gray", "violet", "beige", "turquoise",
    "little", "nice", "large", "huge", "lovely", "beautiful", "pretty", "friendly", "lone",
    "single", "wild", "tall", "long", "short", "fat", "thin", "lazy", "grumpy", "sleepy", "scary",
    "adorable", "fluffy", "furry", "wet", "dirty", "clean", "ancient", "modern", "wise", "brave",
    "hungry", "tired",
})  # fmt: skip
_BEFORE_ALL = _BEFORE | {
    "photo", "picture", "image", "drawing", "painting", "icon", "emoji", "sticker", "of", "draw",
    "paint", "show", "me", "please",
}  # fmt: skip
WORDS = LINKS | _DOING | _BEFORE_ALL
_PLURALS = {
    "mice": "mouse", "geese": "goose", "wolves": "wolf", "leaves": "leaf", "knives": "knife",
    "children": "child", "feet": "foot", "teeth": "tooth", "loaves": "loaf", "oxen": "ox",
}  # fmt: skip
_TOO_GENERAL = frozenset({"man", "woman", "men", "women", "person", "people", "love", "sky"})
_LONGEST_NAME = 6  # words


def heads(text: str) -> Iterator[str]:
    """What may be the name of the thing that an English text is about, the longest first: the
    words that end before the first `link`, or the text, as far back as nothing but articles
    and looks stand before them ("a grey castle with flags": grey castle, castle; of a power plant,
    plant is not the thing). People at something are not led by "man"."""
    return (name for _, name in parts(text))


def parts(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each of `heads`, behind the words before it."""
    said = words(text)
    end = link(said)
    asked = said[:end]
    for start in range(max(0, len(asked) - _LONGEST_NAME), len(asked)):
        before, name = asked[:start], " ".join(asked[start:])
        if end is None and not _BEFORE_ALL.issuperset(before):
            continue  # without a link, all that comes before has to be no thing itself
        begins = (not before or before[-1] in _BEFORE) and asked[start] not in ARTICLES
        if begins and name not in _TOO_GENERAL and len(name) > 1:
            yield before, name


def link(said: Sequence[str]) -> int | None:
    """Where the first of `LINKS`, or what somebody is doing, stands among words."""
    for place, word in enumerate(said):
        behind = place and said[place - 1] not in _BEFORE
        if word in LINKS or (word in _DOING and behind):
            return place
    return None


def wholes(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """The same of names that may have one of `LINKS` in them ("a yellow face with tongue"): all
    that is said behind articles and looks."""
    said = words(text)
    for start in range(1, len(said)):
        if said[start - 1] not in _BEFORE_ALL:
            return
        yield said[:start], " ".join(said[start:])


def looks(before: Sequence[str]) -> list[str]:
    """Of words that stand before a name those that tell how it looks, next to it."""
    own = itertools.takewhile(lambda word: word in _BEFORE and word not in ARTICLES, before[::-1])
    return list(own)


def forms(name: str) -> Iterator[str]:
    """A name, and what its singular may be."""
    yield name
    rest, _, last = name.rpartition(" ")
    before = f"{rest} " if rest else ""
    if last in _PLURALS:
        yield before + _PLURALS[last]
    if len(last) > 3 and last.endswith("s"):
        yield name[:-1]
        if last.endswith("es"):
            yield name[:-2]
        if last.endswith("ies"):
            yield f"{name[:-3]}y"
