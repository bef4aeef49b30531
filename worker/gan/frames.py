"""What people write around the thing they ask for: parts of sentences, joined by chance, and
words that happen to stand in between. Pure functions of strings; knows no emoji."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

ASKS = (
    "please", "could you", "can you", "would you kindly", "I want you to", "I need you to",
    "let us", "try to", "help me", "she told me to", "my boss wants me to", "we decided to",
    "hello,", "hey,", "quickly", "now", "is it possible to", "do you know how to",
    "it would be great to", "they plan to", "everyone wants to", "how about we", "just",
)  # fmt: skip
VERBS = (
    "draw", "make", "create", "generate", "sketch", "render", "design", "imagine", "print",
    "show", "show me", "draw me", "give me", "give us", "send me", "bring", "find", "add", "use",
    "put", "get", "have", "buy", "build", "choose", "produce", "prepare", "display", "describe",
    "I want", "I need", "I love", "I like", "I remember", "I found", "I would like", "we need",
    "we found", "we bought", "we love", "he wants", "he owns", "she has", "she likes",
    "she dreamed of", "they sell", "they have", "this is", "that was", "there is", "there was",
    "it is", "it looks like", "look at", "what about", "who has", "where is", "remember",
    "my grandmother loves", "my brother collects", "our neighbour brought", "nobody forgets",
    "once upon a time there was", "the story begins with", "the children talked about",
)  # fmt: skip
KINDS = (
    "a photo of", "a picture of", "an image of", "a drawing of", "a sketch of", "a sticker of",
    "a close-up of", "an illustration of", "a painting of", "an icon of", "a symbol of",
    "a cartoon of", "a small icon of", "the shape of", "the outline of", "a version of",
    "an example of", "one of", "some kind of", "a pair of", "a design with", "a poster with",
    "a background with", "a scene with", "a postcard showing", "a simple drawing showing",
)  # fmt: skip
PRAISE = (
    "beautiful", "lovely", "pretty", "perfect", "good", "great", "modern", "simple",
    "real", "realistic", "fancy", "awesome", "amazing", "typical", "ordinary", "special",
    "favourite", "best", "colourful", "detailed", "elegant", "plain", "strange",
    "wonderful", "charming", "certain", "usual", "tidy", "friendly", "fine", "decent",
)  # fmt: skip
NEARS = (
    "on", "in", "near", "beside", "behind", "under", "above", "over", "inside", "outside",
    "in front of", "at", "by", "around", "against", "across from", "between", "along", "beyond",
)  # fmt: skip
PLACES = (
    "the wall", "a shelf", "the hill", "a road", "a valley", "the carpet",
    "a wooden bench", "the corner", "our village", "a street", "the market",
    "a blank canvas", "the roof", "my desk", "a town", "the lake",
    "the forest", "a white background", "a plain background", "the shore",
    "one side", "the stage", "a meadow", "a bare spot", "the shop", "a cliff", "a barn",
)  # fmt: skip
TIMES = (
    "in the morning", "in the evening", "at noon", "tonight", "tomorrow", "yesterday", "again",
    "every day", "on Monday", "some weeks ago", "in winter", "in summer", "by and by",
    "once more", "at dawn", "after lunch", "before breakfast", "during the holidays", "always",
    "for once", "the whole afternoon", "later", "this weekend", "a while ago",
)  # fmt: skip
ENDS = (
    "for my website", "for a poster", "for children", "for our project", "for the team",
    "for my profile", "for a presentation", "for the newsletter", "for my daughter",
    "in good resolution", "in bright colours", "in a clean design", "as an icon", "as an ornament",
    "as a present", "as clip art", "as a sticker", "as vector art", "with gentle shadows",
    "with a shadow", "with thick lines", "without any text", "with lots of detail",
    "in cartoon style", "digital art", "highly detailed", "4k", "minimal", "very colorful",
    "that looks great", "if you can", "please", "thanks", "and nothing else", "ever", "or so",
    "because I like it", "so that everybody smiles", "that people will like", "seen from afar",
)  # fmt: skip
PARTS = ((ASKS, 0.3), (VERBS, 0.6), (KINDS, 0.35), (PRAISE, 0.3))
AFTER = ((NEARS, 0.45), (TIMES, 0.25), (ENDS, 0.35))  # a place follows what is near it
AMID = 0.5  # how often words of any kind stand in between
MOST_AMID = 4


def frame(chance: random.Random, amid: Sequence[str] = ()) -> tuple[str, str]:
    """What stands before a name and what after it, each perhaps empty. amid: words of which
    some may be thrown in."""
    before = [chance.choice(part) for part, odds in PARTS if chance.random() < odds]
    after = []
    for part, odds in AFTER:
        if chance.random() < odds:
            after.append(chance.choice(part))
            if part is NEARS:
                after.append(chance.choice(PLACES))
    if amid and chance.random() < AMID:
        for word in chance.choices(amid, k=chance.randint(1, MOST_AMID)):
            side = chance.choice((before, after))
            side.insert(chance.randint(0, len(side)), word)
    return " ".join(before), " ".join(after)


def around(name: str, chance: random.Random, amid: Sequence[str] = ()) -> str:
    """A sentence around a name."""
    before, after = frame(chance, amid)
    return " ".join(part for part in (before, name, after) if part)


def words() -> Iterable[str]:
    """Every word that the parts are made of."""
    return (
        word
        for part in (ASKS, VERBS, KINDS, PRAISE, NEARS, PLACES, TIMES, ENDS)
        for text in part
        for word in text.replace(",", "").lower().split()
    )
