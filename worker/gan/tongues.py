"""What things are called in other languages, and which of them a phrase in one of these is about.
A few lists of words, no parser; knows no vectors."""

from __future__ import annotations

import functools
import itertools
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from worker.gan import abroad, grammar, words

LONGEST = 300  # characters; what is longer tells a story
_SAID = 6  # words of a name
_SIGNS = 16  # letters of a name where none stand between words
_OF = frozenset({  # left out of names and of what is looked up among them
    *abroad.ARTICLES, "de", "del", "della", "dello", "dei", "di", "du", "do", "da", "dos", "das",
    "von", "vom", "van", "af", "av", "l", "d",
})  # fmt: skip
_MARKS = frozenset({  # no English text says these
    "der", "das", "ein", "eine", "einen", "einem", "einer", "und", "mit", "ich", "un", "une", "le",
    "la", "les", "el", "los", "las", "una", "unos", "unas", "il", "lo", "gli", "um", "uma", "de",
    "del", "di", "du", "et", "och", "og", "ett", "det", "een", "het", "egy", "quiero", "je", "eu",
})  # fmt: skip
_HOME = frozenset({"the", "an", "of", "with", "and"})  # no other text says these
_ASIDE = frozenset({  # what shows a thing, and how many there are
    "zwei", "drei", "deux", "trois", "dos", "tres", "due", "tre", "dois", "três", "два", "две",
    "три", "två", "twee", "drie", "dwa", "trzy",
    "bild", "foto", "zeichnung", "symbol", "image", "photo", "dessin", "icône", "imagen", "dibujo",
    "fotografía", "icono", "immagine", "disegno", "imagem", "desenho", "картинка", "фото",
    "рисунок", "изображение", "그림", "사진", "이미지", "эмодзи", "이모지", "obraz", "obrazek",
    "emoji", "zdjęcie", "afbeelding", "tekening", "kuva", "kép", "rajz", "bilde", "billede",
    "teckning",
})  # fmt: skip
_AND = re.compile(
    r"\s+(?:und|et|y|e|i|и|й|та|och|og|en|ja|és|ir|dan|và|और|এবং|[&+])\s+"  # between words
    r"|\s*(?:和|与|與|跟|以及|及|และ)\s*|(?<=\w)(?:とか|と|와|과|하고|이랑|랑)\s*",
    re.IGNORECASE,
)
_UNSPACED = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]")  # Thai, kana, Han
_KANA = re.compile("[\u3040-\u30ff]")
_HANGUL = re.compile("[\uac00-\ud7af]")
_PARTICLE = re.compile("(?<=.)(?:은|는|이|가|을|를|의|와|과|도)$")
_COUNTED = re.compile(
    "^[一二三两兩几幾]?(?:[只隻个個条條匹朵辆輛座棵张張把本头頭颗顆位名艘架台杯块塊支枝片]|つの)の?"
)
_SHOWN = re.compile(
    "的?(?:图片|圖片|照片|图像|表情符号|表情)|の?(?:絵文字|絵|写真|画像|イラスト|アイコン)"
)
_TOLD = re.compile("[がは在正]")  # behind what a sentence is about


_FLAGS = ("国旗", "國旗", "的国旗", "的國旗", "の国旗", "旗", " 국기")  # behind a country


class Tongues:
    """Names and tags by `key`, and the number of each one's thing."""

    def __init__(self, packed: bytes = b"") -> None:
        """packed: what `pack` made."""
        self._packed = packed

    @functools.cached_property
    def _places(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Names and tags: read when the first phrase asks for them."""
        lines = zlib.decompress(self._packed).decode().splitlines() if self._packed else []
        found: tuple[dict[str, int], dict[str, int]] = ({}, {})
        for line in lines:
            kind, place, *said = line.split("\t")
            found[int(kind)].update(dict.fromkeys(said, int(place)))
        return found

    @functools.cached_property
    def _lengths(self) -> Mapping[str, int]:
        """How long a name may be that begins with a sign."""
        found: dict[str, int] = {}
        for said in itertools.chain(*self._places):
            found[said[0]] = max(found.get(said[0], 0), len(said))
        return found

    def name(self, text: str) -> int | None:
        """The number of the thing whose name or tag a text is."""
        names, tags = self._places
        own = key(text)
        return names.get(own, tags.get(own))

    def alone(self, text: str) -> bool:
        """Whether a text is a name with no more than a number and a colour."""
        plain, _ = abroad.coloured(text)
        return len(text) <= LONGEST and self.name(_COUNTED.sub("", plain.strip())) is not None

    def two(self, text: str) -> tuple[str, str] | None:
        """The two things that a text names with an "and" between them, or None."""
        for link in _AND.finditer(text) if len(text) <= LONGEST else ():
            two = text[: link.start()].strip(), text[link.end() :].strip()
            if all(map(self.alone, two)) and self.name(text) is None:
                return two
        return None

    def thing(self, text: str, english: Callable[[str], bool]) -> int | None:
        """The number of the thing that a phrase is about; None of an English text, or where no
        name is found. english: whether a word is one."""
        if len(text) > LONGEST or not self._packed:
            return None
        if _UNSPACED.search(text):
            return self._in_signs("".join(words.words(text)))
        said = _words(text)
        marked = not _MARKS.isdisjoint(said) and _HOME.isdisjoint(said)
        return self._in_words(said) if marked or not any(map(english, said)) else None

    def _in_words(self, said: Sequence[str]) -> int | None:
        """What begins before the first link, else in all; a name before a tag, the first before
        others, in Korean the last, the longest before its parts."""
        last = any(map(_HANGUL.search, said))
        kept = [word for word in said if word not in _OF and word not in _ASIDE]
        end = next((n for n, word in enumerate(kept) if word in abroad.LINKS), len(kept))
        found = [list(_longest(kept, known)) for known in self._places]
        for first, names in itertools.product((end, len(kept)), found):
            if near := [place for start, place in names if start < first]:
                return near[-1 if last else 0]
        return None

    def _in_signs(self, run: str) -> int | None:
        """What が, は or 在 follow, else what follows the last 的 or の, else any; a name before a
        tag, the first in Chinese and in Thai, in Japanese the last."""
        run = _COUNTED.sub("", _SHOWN.sub("", run))
        found = [list(_runs(run, known, self._lengths)) for known in self._places]
        beside = run
        for start, end, _ in found[0]:
            beside = beside[:start] + " " * (end - start) + beside[end:]
        owned = max(beside.rfind("的"), beside.rfind("の"))
        for names in found:
            if told := [place for _, end, place in names if _TOLD.match(run, end)]:
                return told[0]
        for first, names in itertools.product((owned, -1), found):
            if near := [place for start, _, place in names if start > first]:
                return near[-1 if _KANA.search(run) else 0]
        return None


def key(text: str) -> str:
    """What a text in another language is known by: its words without articles and "of"."""
    said = _words(text)
    kept = [word for word in said if word not in _OF] or said
    return ("" if _UNSPACED.search(text) else " ").join(kept)


def called(label: str) -> list[str]:
    """What else goes by a published name: a flag by its country's, whichever comes first."""
    _, colon, country = label.replace("：", ":").partition(":")
    flag = _UNSPACED.search(country) or _HANGUL.search(country)
    return [label, *(country.strip() + said for said in _FLAGS if colon and flag)]


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.replace("œ", "oe") for word in words.words(text))


def pack(names: Mapping[str, int], tags: Mapping[str, int]) -> bytes:
    """What `Tongues` reads, of names and tags by `key`, and of each the number of its thing."""
    lines = []
    for kind, known in enumerate((names, tags)):
        of: dict[int, list[str]] = {}
        for said, place in known.items():
            of.setdefault(place, []).append(said)
        lines += ["\t".join((str(kind), str(place), *sorted(of[place]))) for place in sorted(of)]
    return zlib.compress("\n".join(lines).encode(), 9)


def _longest(said: Sequence[str], known: Mapping[str, int]) -> Iterator[tuple[int, int]]:
    """Where the names among words begin and whose they are, none within another; a number alone is
    no name."""
    start = 0
    while start < len(said):
        for end in range(min(len(said), start + _SAID), start, -1):
            name = " ".join(said[start:end])
            place = next((known[form] for form in _forms(name) if form in known), None)
            if place is not None and not name.isdigit():
                yield start, place
                start = end - 1
                break
        start += 1


def _forms(name: str) -> Iterator[str]:
    """A name, and what it may be without a plural's ending or a Korean particle."""
    yield from grammar.forms(name)
    for ending in ("e", "n", "en"):
        stem = name.removesuffix(ending)
        if len(name) > len(stem) > 3:
            yield stem
    if _HANGUL.search(name):
        yield _PARTICLE.sub("", name)


def _runs(
    run: str, known: Mapping[str, int], lengths: Mapping[str, int]
) -> Iterator[tuple[int, int, int]]:
    """The same, and where each ends, where no spaces stand between words. One sign of kana or Thai
    is no word, nor is 的."""
    start = 0
    while start < len(run):
        word = "\u3400" <= run[start] <= "\u9fff" and run[start] != "的"
        least = start + 1 if word else start + 2
        most = start + min(lengths.get(run[start], 0), _SIGNS)
        for end in range(min(len(run), most), least - 1, -1):
            if run[start:end] in known:
                yield start, end, known[run[start:end]]
                start = end - 1
                break
        start += 1
