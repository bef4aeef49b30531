"""From text to the features that the text encoder looks up: words, and the pieces of words
hashed into one table. Works for any script; knows no network."""

from __future__ import annotations

import functools
import re
import unicodedata
import zlib
from collections.abc import Container, Iterable

from worker.gan import captions

BUCKETS = 1 << 15
MOST = 64  # words of a prompt that are read

ARTICLES = ("a", "an", "the")
SKIN = frozenset({"skin", "skinned"})
TONE = frozenset(re.findall(r"\w+", " ".join(captions.TONES)))
ATTRIBUTES = (  # how a thing looks, not what it is
    "red", "blue", "green", "yellow", "orange", "purple", "pink", "black", "white", "brown",
    "golden", "silver", "big", "small", "tiny", "giant", "cute", "happy", "sad", "angry",
    "old", "young", "smiling", "sleeping", "shiny", "dark", "bright", "round", "flying",
    "running", "cool", "funny", "wooden", "fresh", "hot", "cold",
)  # fmt: skip

_MARKS = "\u0300-\u036f\u0900-\u09ff\u0e00-\u0e7f"  # vowel signs, which \w leaves out
_SIGNS = "©®‼⁉\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001f1e5\U0001f200-\U0001faff"
_WORD = re.compile(  # words, flags, pictographs, keys
    rf"[\w{_MARKS}]+|[\U0001f1e6-\U0001f1ff]{{2}}|[{_SIGNS}]|[#*]\u20e3"
)
_TOKEN = re.compile(rf"[\w{_MARKS}]+")
_SIGN = re.compile(rf"[{_SIGNS}][{_SIGNS}\ufe0f\u200d\u20e3\U000e0020-\U000e007f]*")
_PART = rf"[{_SIGNS}][\ufe0f\u20e3\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]*"
_EMOJI = re.compile(rf"{_PART}(?:\u200d{_PART})*|[\U0001f1e6-\U0001f1ff]{{2}}|[0-9#*]\ufe0f?\u20e3")
_JOINED_SEX = re.compile("\u200d[\u2640\u2642]\ufe0f?")
_WORKER = re.compile("[\U0001f468\U0001f469](?=[\U0001f3fb-\U0001f3ff]?\u200d)")  # man, woman
_FAMILY = re.compile(
    "[\U0001f466-\U0001f469\U0001f9d1\U0001f9d2](?:\u200d[\U0001f466-\U0001f469\U0001f9d1\U0001f9d2])+"
)
_ONWARDS = re.compile("\u200d\u27a1\ufe0f?")  # turned to the right
_TONE = re.compile("[\U0001f3fb-\U0001f3ff]")
_LETTERS = {0xE0000 + letter: chr(letter) for letter in range(0x61, 0x7B)}  # of a land's flag
_MODIFIER = re.compile("[\ufe0f\u200d]")  # variants, joiners
_SAID = _LETTERS | {0x1F3FB + n: f" {tone} " for n, tone in enumerate(captions.TONES)}
_UNSPACED = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


@functools.lru_cache(1024)
def words(text: str) -> tuple[str, ...]:
    """The words of a text, at most `MOST`, letter case and compatibility forms folded
    (Unicode NFKC); a pictograph is a word, and so is a flag; a skin tone says its name. Empty
    for a text without any.
    """
    folded = unicodedata.normalize("NFKC", _MODIFIER.sub("", text).translate(_SAID)).casefold()
    return tuple(_WORD.findall(folded)[:MOST])


def key(text: str) -> str:
    """What a text is known by: its words, without an article before others."""
    said = words(text)
    return " ".join(said[1:] if len(said) > 1 and said[0] in ARTICLES else said)


def bare(text: str) -> str:
    """The words of a text without those that say how a thing looks; empty where there are none of
    these, or only these, or where a skin tone is meant, which names have."""
    said = words(text)
    kept = [word for word in said if word not in ATTRIBUTES]
    return "" if toned(said) or len(kept) == len(said) else " ".join(kept)


def without(text: str, word: str) -> str:
    """A text without the first of its words that `words` would read as that one."""
    for found in _TOKEN.finditer(text):
        if words(found[0]) == (word,):
            return text[: found.start()] + text[found.end() :].lstrip()
    return text


def toned(said: Iterable[str]) -> bool:
    """Whether words tell of a skin tone."""
    return not SKIN.isdisjoint(said)


def signs(text: str) -> set[str]:
    """The emoji in a text, each by its `key`."""
    return {key(found) for found in _SIGN.findall(text)}


def drawn(text: str) -> tuple[str, ...]:
    """The emoji of a text that has nothing else, each with its joined parts; empty for others."""
    found = _EMOJI.findall(text)
    return tuple(found) if "".join(found) == "".join(text.split()) else ()


def neutral(text: str, known: Container[str]) -> str:
    """A text whose emoji of a man or a woman doing something, where none of the `known` keys is
    theirs, are of a person doing it: that is what the generator was shown. The same of any family,
    of any couple, and of a skin tone of which nothing was shown."""

    def person(found: re.Match[str]) -> str:
        sign = _ONWARDS.sub("", found[0])
        if key(sign) in known:
            return sign
        if "\u2764" in sign:
            return "\U0001f48f" if "\U0001f48b" in sign else "\U0001f491"
        if _FAMILY.fullmatch(sign):
            return "\U0001f46a"
        if "\U0001f91d" in sign or sign[0] in "\U0001f46b\U0001f46c\U0001f46d":
            return "\U0001f9d1\u200d\U0001f91d\u200d\U0001f9d1"
        one = _JOINED_SEX.sub("", _WORKER.sub("\U0001f9d1", sign))
        plain = _TONE.sub("", one)
        return one if key(one) in known or key(plain) not in known else plain

    return _SIGN.sub(person, text)


@functools.lru_cache(maxsize=65_536)
def pieces(word: str) -> tuple[int, ...]:
    """Table rows of a word: the word itself and its pieces of 3 to 5 letters (Bojanowski et
    al. 2017, section 3.2), or of 1 to 3 signs in scripts that put no spaces between words.
    """
    whole = f"<{word}>"
    if _UNSPACED.search(word):
        found = [whole, *_runs(word, (1, 2, 3))]
    else:
        found = [whole, *_runs(whole, (3, 4, 5))]
    return tuple(dict.fromkeys(zlib.crc32(piece.encode()) % BUCKETS for piece in found))


def _runs(text: str, lengths: tuple[int, ...]) -> list[str]:
    return [text[at : at + n] for n in lengths for at in range(len(text) - n + 1)]
