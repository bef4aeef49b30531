"""What everything is called that the generator knows, and what a prompt says of it word for word.
Knows no vectors but those it hands on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from worker.gan import abroad, captions, colours, grammar, words
from worker.gan.memory import Cue, Dense, Floats, Memory
from worker.gan.tongues import Tongues

_COMMA = re.compile(r",(?=\s)|(?<=\s),")  # not that of 1,000
_OWN = re.compile(  # flags, and people who have no skin tone
    rf"^{captions.FLAG}|\b(?:person|people|man|woman|men|women|family|fencer|skier|wrestlers)\b(?!’)"
)
_TONE = re.compile("|".join(sorted(captions.TONES, key=len, reverse=True)))
_MOST = 4  # parts of a text between commas that may be one name


class Names:
    """By `words.key`, and whose it is: `names` has each thing's name, its characters and its words
    of every day, `known` all that it is called. `skins` has, by its number, of each thing in a skin
    tone the number of the same without it, and the tone's; `own` are those that have their colours
    whatever is said: people, their hands, and flags."""

    def __init__(
        self,
        called: Sequence[Sequence[str]],
        everyday: Mapping[str, int],
        abroad: Tongues | None = None,
    ) -> None:
        """called: of each thing its name, what else it is called, and its characters; abroad: the
        same in other languages."""
        self._first = [each[0] for each in called]
        self._everyday = everyday
        also = {words.key(word): place for word, place in everyday.items()}
        self.names = also | _places([[each[0], each[-1]] for each in called])
        self.known = _places(called) | self.names
        self.abroad = abroad or Tongues()
        self._english = {word for said in self.known for word in said.split()} | grammar.WORDS
        self._said = [frozenset(words.words(name)) for name in self._first]
        self.skins = dict(self._in_tones())
        people = {plain for plain, _ in self.skins.values()}
        others = {n for n, name in enumerate(self._first) if _OWN.search(name)}
        self.own = frozenset(people | others)

    def _in_tones(self) -> Iterator[tuple[int, tuple[int, int]]]:
        """Of each name in a skin tone the name without it, and the tone's number."""
        for place, name in enumerate(self._first):
            plain = " ".join(word for word in words.words(name) if word not in words.TONE)
            tone = _TONE.search(name)
            if tone and plain in self.names:
                yield place, (self.names[plain], captions.TONES.index(tone[0]))

    def memory(
        self, read: Callable[[Sequence[str]], Floats], dense: Callable[[Floats], Dense]
    ) -> Memory:
        """The memory of all names. A word that tells how things look, such as "sad", draws no
        other text to its thing."""
        looks = set(words.ATTRIBUTES)
        also = [word for word in self._everyday if not set(words.words(word)) <= looks]
        keys = [*also, *self._first]
        vectors = read(keys)
        said = [frozenset(words.words(key)) for key in keys]
        owners = [*(self._everyday[word] for word in also), *range(len(self._first))]
        return Memory(vectors[len(also) :], vectors, said, owners, dense=dense)

    def cue(self, prompt: str, bare: Floats | None) -> Cue:
        """What is known of a prompt beside its vector. bare: as `Cue` has it."""
        said = words.words(prompt)
        head = None if words.toned(said) else self._head(prompt)
        forms = list(grammar.forms(words.key(prompt)))
        name = _first(self.names, forms)  # "butterflies" are no worried face, whose tag that is
        name = _first(self.known, forms) if name is None else name
        leads = self._leading(prompt)
        if name is None and leads is None and head is None:
            name = self.abroad.name(prompt, self._english)
            leads = self.abroad.thing(prompt, self._english) if name is None else None
        return Cue(frozenset(said), bare, head, leads, name)

    def coloured(self, text: str) -> tuple[str, str | None]:
        """A text without the colour that it asks for a thing in, and that colour, by its key of
        `colours.PAINTS`: "a blue apple". The text and None where it says none, or several, or is
        what a thing is called ("a green apple")."""
        first = text.partition(",")[0]
        if {words.key(text), words.key(first)} & self.known.keys():
            return text, None
        shade = abroad.SHADES.sub("", first)
        if any(map(colours.named, words.words(shade))):
            for before, said in (*grammar.wholes(shade), *grammar.parts(shade)):
                if self._thing(said) is None:
                    continue
                looks = grammar.looks(before)
                own = [word for word in looks if colours.named(word)]
                joined = before[: len(before) - len(looks)][-1:] == ("and",)
                if len(own) != 1 or joined or f"{own[0]} {said}" in self.names:
                    return text, None
                return words.without(shade, own[0]) + text[len(first) :], colours.named(own[0])
        plain, paint = abroad.coloured(text)
        if paint and self._abroad(text) != self._abroad(plain):
            return text, None  # the colour is part of the name
        return plain, paint

    def _abroad(self, text: str) -> int | None:
        """The number of what a text in another language is, or what it is about."""
        name = self.abroad.name(text, self._english)
        return self.abroad.thing(text, self._english) if name is None else name

    def _thing(self, said: str) -> int | None:
        """The number of what is called so; what a thing is called for its colour ("blue car") is
        no name, unless it is the first."""
        named = _first(self.names, grammar.forms(said))
        if named is not None or any(map(colours.named, said.split())):
            return named
        return _first(self.known, grammar.forms(said))

    def _head(self, prompt: str) -> tuple[int, frozenset[str]] | None:
        """The known thing that a prompt is about, if its grammar says so, and its words: those it
        was called by and those of its name. Of a prompt that says nothing else ("a small stag")
        no words, so that nothing that shares one is drawn instead."""
        alone = grammar.link(words.words(prompt)) is None
        for said in grammar.heads(prompt):
            for name in grammar.forms(said):
                if (place := self.names.get(name)) is not None:
                    own = frozenset(f"{said} {name}".split()) | self._said[place]
                    return place, frozenset() if alone else own
        return None

    def _leading(self, prompt: str) -> int | None:
        """The name that a prompt begins with: the longest that a comma ends, or another thing it is
        called if what follows says that again ("sauce, spicy sauce"); or that it is explained by
        ("a red disc on white, the flag of Japan"), or its only emoji. A name without a skin tone
        does not lead a text that tells of one."""
        parts = _COMMA.split(prompt)
        named = [words.key(part) for part in parts[1:_MOST] if words.words(part)[:1] == ("the",)]
        most = min(len(parts) - 1, _MOST)
        keys = [words.key(", ".join(parts[:end])) for end in range(most, 0, -1)]
        found = [self.names[key] for key in keys if key in self.names]
        if not found and keys and keys[-1] in self.known:
            again = set(words.words(" ".join(parts[1:]))) >= set(keys[-1].split())
            found = [self.known[keys[-1]]] if again else []
        found = found or [self.known[key] for key in named if key in self.known]
        signs = words.signs(prompt)
        if not found and len(signs) == 1:
            found = [self.names[sign] for sign in signs if sign in self.names]
        told = words.toned(words.words(prompt))
        return next((n for n in found if not told or words.toned(self._said[n])), None)


def _first(among: Mapping[str, int], forms: Iterable[str]) -> int | None:
    return next((among[form] for form in forms if form in among), None)


def _places(called: Sequence[Sequence[str]]) -> dict[str, int]:
    """What things are called, by `words.key`, and whose it is: the first one's."""
    found: dict[str, int] = {}
    for place, texts in enumerate(called):
        for text in texts:
            found.setdefault(words.key(text), place)
    found.pop("", None)  # of signs that are no words
    return found
