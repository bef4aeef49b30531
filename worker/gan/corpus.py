"""What the text encoder learns from: published names and tags in every language of the
names package, English captions, sentences around them, and common words. Pure functions
of strings and chance; embeds nothing."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.gan import captions, frames, tongues, words
from worker.gan.data import COMMON_TAG, Concept

HELD_FRAMES = (  # share no words but articles, prepositions and pronouns with `frames`
    "here we see {} in the middle of the page", "paint me {}, thank you",
    "{} as a tiny logo", "a nice little {} next to a river", "someone asked for {} today",
)  # fmt: skip  # never trained on
PAIRS = ("{} and {}", "{} next to {}")  # "with" tells of parts, a comma of tags
HELD_PAIRS = 100
SHARED = 2  # languages that have a word for a name, which then is not English alone
ALIKE = 0.3  # of the things that either of two tags stands for, how many both do (Jaccard)
NAME = 30.0  # weight of a plain name, which is asked for most


@dataclass(frozen=True, slots=True)
class Text:
    """A text to learn. concept: the one whose name it should mean, or None for a text that
    means itself; pull: how far from its own teacher vector (0) to that name's (1); weight:
    how often it is drawn, beside 1."""

    text: str
    concept: int | None
    pull: float
    weight: float


def article(name: str, chance: random.Random) -> str:
    """Half the time with its article."""
    if chance.random() < 0.5:
        return name
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def english(
    chosen: Sequence[Concept], chance: random.Random, *, sentences: int = 12, share: float = 48.0
) -> Iterator[Text]:
    """Captions, `sentences` of them that weigh `share` together, and attributes that a
    concept may or may not have."""
    for number, concept in enumerate(chosen):
        name = captions.names(concept.label, ())[0]
        for caption in concept.captions:
            yield Text(caption, number, 0.0, NAME if caption == name else 2.0)
        for _ in range(sentences):
            sentence = frames.around(article(name, chance), chance)
            yield Text(sentence, number, 1.0, share / sentences)
        for attribute in chance.sample(words.ATTRIBUTES, 7):
            yield Text(f"{attribute} {name}", None, 0.0, 1.0)


def held(chosen: Sequence[Concept], chance: random.Random) -> list[tuple[str, int]]:
    """A sentence for each concept in a frame that training never sees."""
    return [
        (
            chance.choice(HELD_FRAMES).format(article(captions.names(c.label, ())[0], chance)),
            number,
        )
        for number, c in enumerate(chosen)
    ]


def pairs(
    chosen: Sequence[Concept], count: int, chance: random.Random
) -> list[tuple[str, int, int]]:
    """Texts of two subjects, and which: drawn by the concepts' weights."""
    weights = [concept.weight for concept in chosen]
    names = [captions.names(concept.label, ())[0] for concept in chosen]
    found = []
    for _ in range(count):
        one, other = chance.choices(range(len(chosen)), weights, k=2)
        text = chance.choice(PAIRS).format(
            article(names[one], chance), article(names[other], chance)
        )
        found.append((text, one, other))
    return found


def owned(called: Sequence[Sequence[str]]) -> list[list[str]]:
    """Of what things are called, names first, what is theirs: of those that share a word the one
    whose name has it, the shortest; nobody's where none has."""
    sharing: dict[str, list[int]] = {}
    for number, texts in enumerate(called):
        for text in texts:
            sharing.setdefault(text, []).append(number)

    def owner(text: str) -> int | None:
        numbers = sharing[text]
        having = [n for n in numbers if text in called[n][0].split()]
        if len(numbers) == 1:
            return numbers[0]
        return min(having, key=lambda n: len(called[n][0]), default=None)

    return [
        [texts[0], *(text for text in texts[1:] if owner(text) == number)]
        for number, texts in enumerate(called)
    ]


def foreign(
    chosen: Sequence[Concept], languages: Mapping[str, Sequence[dict[str, Any]]]
) -> Iterator[Text]:
    """Names and tags of other languages, each to mean the English name. A tag that many
    emoji of its language share says too little alone."""
    numbers = {concept.code: number for number, concept in enumerate(chosen)}
    for entries in languages.values():
        counts = Counter(tag for entry in entries for tag in entry.get("tags") or ())
        for entry in entries:
            number = numbers.get(entry["hexcode"])
            if number is None:
                continue
            yield Text(entry["label"], number, 1.0, 2.0)
            for tag in entry.get("tags") or ():
                if counts[tag] <= COMMON_TAG and len(tag) > 1:
                    yield Text(tag, number, 1.0, 0.5)
                yield Text(f"{entry['label']}, {tag}", number, 1.0, 0.5)


def abroad(
    chosen: Sequence[Concept],
    languages: Mapping[str, Sequence[dict[str, Any]]],
    english: Mapping[str, int],
    vocabulary: Sequence[str] = (),
) -> tuple[dict[str, int], dict[str, int], list[str]]:
    """The names and the tags of all languages, by `tongues.key`, and the number of what most
    languages mean by it, the more a tag stands for; of several the one with the shortest name; and
    the words of an English vocabulary that are nobody else's names. english: what English words
    mean. A tag means what that English one does which stands for the same emoji; one that stands
    for the same as none means nothing if many share it, nor does a number, nor what is English."""
    numbers = {concept.code: number for number, concept in enumerate(chosen)}
    names: dict[str, Counter[int]] = {}
    tags: dict[str, dict[int, float]] = {}
    home = _tagged(languages.get("en-gb", ()), numbers)
    same = {word: of for word, of in home.items() if word in english}
    for entries in languages.values():
        for entry in entries:
            for said in tongues.called(entry["label"]) if entry["hexcode"] in numbers else ():
                names.setdefault(tongues.key(said), Counter())[numbers[entry["hexcode"]]] += 1
        for tag, of in _tagged(entries, numbers).items():
            told = ((len(of & own) / len(of | own), word) for word, own in same.items())
            alike, word = max(told, default=(0.0, ""))
            found = {english[word]} & of if alike >= ALIKE else set()
            votes = tags.setdefault(tongues.key(tag), {})
            for number in found or (of if len(of) <= COMMON_TAG else ()):
                if not chosen[number].label.startswith("keycap"):
                    votes[number] = votes.get(number, 0) + max(alike, ALIKE) * len(of)

    def meant(votes: Mapping[int, float]) -> int:
        return min(votes, key=lambda n: (-votes[n], len(chosen[n].label), n))

    own = {said: meant(votes) for said, votes in names.items() if said}
    spoken = {tongues.key(text) for concept in chosen for text in concept.captions}
    plain = [word for word in _known(vocabulary) if names.get(word, Counter()).total() < SHARED]
    spoken |= {"", *own, *map(tongues.key, home), *plain}
    return own, {tag: meant(of) for tag, of in tags.items() if of and tag not in spoken}, plain


def _tagged(entries: Sequence[dict[str, Any]], numbers: Mapping[str, int]) -> dict[str, set[int]]:
    """Of which things each tag of a language is."""
    found: dict[str, set[int]] = {}
    for entry in entries:
        for tag in (entry.get("tags") or ()) if entry["hexcode"] in numbers else ():
            found.setdefault(tag.casefold(), set()).add(numbers[entry["hexcode"]])
    return found


def pictographs(chosen: Sequence[Concept]) -> Iterator[Text]:
    """Each emoji's own characters."""
    for number, concept in enumerate(chosen):
        signs = "".join(chr(int(part, 16)) for part in concept.code.split("-"))
        yield Text(signs, number, 1.0, 6.0)


def plain(chosen: Sequence[Concept], vocabulary: Sequence[str]) -> list[str]:
    """Words of the vocabulary that no caption holds: they may stand around any name."""
    held = {word for one in chosen for text in one.captions for word in _WORD.findall(text)}
    held = {word.lower() for word in held} | set(words.ATTRIBUTES)
    return [word for word in _known(vocabulary) if word not in held]


_WORD = re.compile(r"\w+")


def _known(vocabulary: Sequence[str]) -> list[str]:
    return [word for word in vocabulary if word.isascii() and word.isalpha() and len(word) > 2]


def common(vocabulary: Sequence[str], count: int, chance: random.Random) -> Iterator[Text]:
    """Words of the teacher's own vocabulary, alone and by two, each meaning itself."""
    known = _known(vocabulary)
    for word in known:
        yield Text(word, None, 0.0, 1.0)
    for _ in range(count):
        text = chance.choice(("{} {}", "{} and {}", "{} with {}", "{} of {}"))
        yield Text(text.format(*chance.sample(known, 2)), None, 0.0, 1.0)
