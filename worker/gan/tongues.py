"""What things are called in other languages, and which of them a phrase in one of these is about.
A few lists of words, no parser; knows no vectors."""

from __future__ import annotations

import functools
import itertools
import re
import zlib
from collections.abc import Container, Iterator, Mapping, Sequence

from worker.gan import abroad, grammar, words

LONGEST = 300  # characters; what is longer tells a story
_SAID = 6  # words of a name
_SIGNS = 16  # letters of a name where none stand between words
_OF = frozenset({  # left out of names and of what is looked up among them
    *abroad.ARTICLES, "de", "del", "della", "dello", "dei", "di", "du", "do", "da", "dos", "das",
    "von", "vom", "van", "af", "av", "l", "d", "egy", "en", "et", "ett", "een", "het",
})  # fmt: skip
_MARKS = frozenset({  # no English text says these
    "der", "das", "ein", "eine", "einen", "einem", "einer", "und", "mit", "ich", "un", "une", "le",
    "la", "les", "el", "los", "las", "una", "unos", "unas", "il", "lo", "gli", "um", "uma", "de",
    "del", "di", "du", "et", "och", "og", "ett", "det", "een", "het", "egy", "quiero", "je", "eu",
})  # fmt: skip
_HOME = frozenset({"the", "an", "of", "with", "and"})  # no other text says these
_ASIDE = frozenset({  # what shows a thing, and how many there are
    "ich", "du", "wir", "mein", "meine", "mich", "dich", "esse", "liebe", "frohe", "alles", "je",
    "tu", "te", "mon", "ma", "bon", "joyeux", "merci", "yo", "mi", "feliz", "muchas", "gracias",
    "amo", "eu", "meu", "minha", "io", "ti", "mio", "buon", "buona", "grazie",
    "zwei", "drei", "deux", "trois", "dos", "tres", "due", "tre", "dois", "três", "два", "две",
    "три", "två", "twee", "drie", "dwa", "trzy",
    "bild", "foto", "zeichnung", "symbol", "image", "photo", "dessin", "icône", "imagen", "dibujo",
    "fotografía", "icono", "immagine", "disegno", "imagem", "desenho", "картинка", "фото",
    "рисунок", "изображение", "그림", "사진", "이미지", "эмодзи", "이모지", "obraz", "obrazek",
    "emoji", "zdjęcie", "afbeelding", "tekening", "kuva", "kép", "rajz", "bilde", "billede",
    "teckning",
})  # fmt: skip
_AND = re.compile(
    r"\s+(?:und|et|y|e|i|и|й|і|та|och|og|ja|és|ir|dan|ve|và|और|এবং|[&+])\s+"  # between words
    r"|\s+en\s+(?=(?:een|het)\s)|\s*(?:和|与|與|跟|以及|及|และ)\s*|(?<=\w)(?:とか|と)\s*"
    r"|(?<=[가-힣]{2})(?:와|과|하고|이랑|랑)\s+",
    re.IGNORECASE,
)
_UNSPACED = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]")  # Thai, kana, Han
_KANA = re.compile("[\u3040-\u30ff]")
_HANGUL = re.compile("[\uac00-\ud7af]")
_LATE = re.compile("[\uac00-\ud7af\u0400-\u04ff]")  # where how a thing looks comes before it
_BETWEEN, _AFTER = "的のいな", "的のがはをに在和与跟坐站吃喝躺跑睡"
_LINKS = abroad.LINKS | {"на", "в", "во", "с", "со", "под", "над", "у", "без", "для", "из"}
_PARTICLE = re.compile("(?<=.)(?:은|는|이|가|을|를|의|와|과|도)$")
_COUNTED = re.compile(
    "^[一二三两兩几幾]?(?:[只隻个個条條匹朵辆輛座棵张張把本头頭颗顆位名艘架台杯块塊支枝片]|つの)の?"
)
_SHOWN = re.compile(
    "的?(?:图片|圖片|照片|图像|表情符号|表情)|の?(?:絵文字|絵|写真|画像|イラスト|アイコン)"
)
_COUNTERS = re.compile(  # in Korean, behind a number
    r"(?:한|두|세|네|다섯|\d)\s*(?:개|마리|명|대|송이|그루|잔)(?!\w)"
)
_TOLD = re.compile("[がは在正]")  # behind what a sentence is about


_FLAGS = ("国旗", "國旗", "的国旗", "的國旗", "の国旗", "旗", " 국기")  # behind a country


class Tongues:
    """Names and tags by `key`, and the number of each one's thing; and English words, which are
    left to those who know English."""

    def __init__(self, packed: bytes = b"") -> None:
        """packed: what `pack` made."""
        self._packed = packed

    @functools.cached_property
    def _places(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Names, and these and tags: read when the first phrase asks for them."""
        names, tags = ({said: n for n, each in of for said in each} for of in self._read[:2])
        return names, tags | names

    @functools.cached_property
    def _english(self) -> frozenset[str]:
        return frozenset(word for _, words in self._read[2] for word in words)

    @functools.cached_property
    def _read(self) -> list[list[tuple[int, list[str]]]]:
        found: list[list[tuple[int, list[str]]]] = [[], [], []]
        lines = zlib.decompress(self._packed).decode().splitlines() if self._packed else []
        for line in lines:
            kind, place, *said = line.split("\t")
            found[int(kind)].append((int(place), said))
        return found

    @functools.cached_property
    def _lengths(self) -> Mapping[str, int]:
        """How long a name may be that begins with a sign."""
        found: dict[str, int] = {}
        for said in self._places[1]:
            found[said[0]] = max(found.get(said[0], 0), len(said))
        return found

    def name(self, text: str, english: Container[str]) -> int | None:
        """The number of the thing whose name or tag a text is, unless it is English: names of
        several words are no other's. english: further words of it."""
        names, known = self._places
        own = key(text)
        place = names.get(own) if " " in own else None
        if place is None and own in known and self._foreign(text, english):
            place = known[own]
        return place

    def alone(self, text: str) -> bool:
        """Whether a text is a name with no more than a number and a colour."""
        plain, _ = abroad.coloured(text)
        counted = _COUNTERS.sub("", _COUNTED.sub("", plain.strip()))
        return len(text) <= LONGEST and key(counted) in self._places[1]

    def two(self, text: str) -> tuple[str, str] | None:
        """The two things that a text names with an "and" between them, or None."""
        for link in _AND.finditer(text) if len(text) <= LONGEST else ():
            two = text[: link.start()].strip(), text[link.end() :].strip()
            if all(map(self.alone, two)) and key(text) not in self._places[1]:
                return two
        return None

    def thing(self, text: str, english: Container[str]) -> int | None:
        """The number of the thing that a phrase is about; None of an English text, or where no
        name is found."""
        if len(text) > LONGEST or not self._packed or not self._foreign(text, english):
            return None
        if _UNSPACED.search(text):
            return self._in_signs("".join(words.words(text)))
        return self._in_words(_words(_COUNTERS.sub("", text)))

    def _foreign(self, text: str, english: Container[str]) -> bool:
        said = _words(text)
        if _UNSPACED.search(text) or (not _MARKS.isdisjoint(said) and _HOME.isdisjoint(said)):
            return True
        return not any(word in self._english or word in english for word in said)

    def _in_words(self, said: Sequence[str]) -> int | None:
        """What begins before the first link, else in all; a name before a tag, the first before
        others, the last in Korean and in Cyrillic, the longest before its parts."""
        last = any(map(_LATE.search, said))
        kept = [word for word in said if word not in _OF and word not in _ASIDE]
        end = next((n for n, word in enumerate(kept) if word in _LINKS), len(kept))
        found = list(_longest(kept, self._places[1]))
        for first, known in itertools.product((end, len(kept)), self._places):
            near = [known[name] for start, name in found if start < first and name in known]
            if near:
                return near[-1 if last else 0]
        return None

    def _in_signs(self, run: str) -> int | None:
        """What が, は or 在 follow, else what follows the last 的 or の, else any; a name before a
        tag, the first in Chinese and in Thai, in Japanese the last."""
        run = _COUNTED.sub("", _SHOWN.sub("", run))
        names, known = self._places
        found = list(_runs(run, known, names, self._lengths))
        beside = run
        for start, end in found:
            beside = beside[:start] + " " * (end - start) + beside[end:]
        owned = max(beside.rfind("的"), beside.rfind("の"))
        told = [(start, end) for start, end in found if _TOLD.match(run, end)]
        behind = [(start, end) for start, end in found if start > owned]
        for chosen, among in itertools.product((told, behind, found), self._places):
            near = [among[run[start:end]] for start, end in chosen if run[start:end] in among]
            if near:
                return near[-1 if _KANA.search(run) and chosen is not told else 0]
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


def pack(names: Mapping[str, int], tags: Mapping[str, int], english: Sequence[str] = ()) -> bytes:
    """What `Tongues` reads, of names and tags by `key`, and of each the number of its thing; and
    of English words."""
    lines = []
    for kind, known in enumerate((names, tags, dict.fromkeys(english, 0))):
        of: dict[int, list[str]] = {}
        for said, place in known.items():
            of.setdefault(place, []).append(said)
        lines += ["\t".join((str(kind), str(place), *sorted(of[place]))) for place in sorted(of)]
    return zlib.compress("\n".join(lines).encode(), 9)


def _longest(said: Sequence[str], known: Mapping[str, int]) -> Iterator[tuple[int, str]]:
    """Where the names among words begin, and they, none within another; a number alone is no
    name."""
    start = 0
    while start < len(said):
        for end in range(min(len(said), start + _SAID), start, -1):
            name = " ".join(said[start:end])
            found = next((form for form in _forms(name) if form in known), None)
            if found is not None and not name.isdigit():
                yield start, found
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
    run: str, known: Mapping[str, int], names: Container[str], lengths: Mapping[str, int]
) -> Iterator[tuple[int, int]]:
    """Where the names begin and end where no spaces stand between words. One sign of kana or Thai
    is no word, nor is 的; one of Han is if a tag is all that stands between 的 or の, or a name
    does not begin a word of two."""
    start = 0
    while start < len(run):
        word = "\u3400" <= run[start] <= "\u9fff" and run[start] != "的"
        most = start + min(lengths.get(run[start], 0), _SIGNS)
        for end in range(min(len(run), most), start + (0 if word else 1), -1):
            if run[start:end] in known and (end > start + 1 or _single(run, start, names)):
                yield start, end
                start = end - 1
                break
        start += 1


def _single(run: str, start: int, names: Container[str]) -> bool:
    """Whether one sign of Han stands for a thing."""
    before, after = run[start - 1 : start], run[start + 1 : start + 2]
    free = not after or after in _AFTER
    return free and (run[start] in names or not before or before in _BETWEEN)
