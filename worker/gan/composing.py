"""What is drawn for each prompt, and how drawings become its picture: in colours, in a skin tone,
two side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worker.gan import colours, pairs, skin
from worker.gan.asking import Asked
from worker.gan.colours import Pixels
from worker.gan.encoder import TextEncoder
from worker.gan.memory import Floats


@dataclass(frozen=True, slots=True)
class Plan:
    """What a batch is drawn from. texts [D, 384]: of the subjects of all items in order, and again
    of those in a skin tone, without it; items [D]: whose each is; counts [N]: how many subjects
    each item has; colours: of each subject, as `Asked` has it; tones: of each that is drawn again,
    its number among the subjects and its tone's."""

    texts: Floats
    items: list[int]
    counts: list[int]
    colours: list[str | None]
    tones: list[tuple[int, int]]

    @property
    def shown(self) -> Floats:
        """What each subject shows, without its tone: of these the scorer has learned nothing."""
        found = self.texts[: len(self.colours)].copy()
        for plain, (subject, _) in zip(self.texts[len(found) :], self.tones, strict=True):
            found[subject] = plain
        return found

    def composed(self, drawn: Pixels) -> Pixels:
        """Pictures [N, H, W, 3] of the items from their drawings [D, H, W, 3]: an item's bytes are
        its own."""
        made = drawn[: len(self.colours)]
        if self.tones:
            made = made.copy()
        for plain, (subject, tone) in zip(drawn[len(made) :], self.tones, strict=True):
            made[subject] = skin.toned(plain, made[subject], tone)
        return pairs.join(colours.painted(made, self.colours), self.counts)


def planned(asked: Sequence[Asked], encoder: TextEncoder) -> Plan:
    """People and flags are not painted, whatever colour is said of them."""
    items = [number for number, each in enumerate(asked) for _ in each.texts]
    read = encoder.recall([text for each in asked for text in each.texts])
    paints = [colour for each in asked for colour in each.colours]
    toned = [(number, one.skin) for number, one in enumerate(read) if one.skin]
    texts = [*(one.vector for one in read), *(own.plain for _, own in toned)]
    return Plan(
        np.stack(texts),
        items + [items[number] for number, _ in toned],
        [len(each.texts) for each in asked],
        [None if one.own else paint for one, paint in zip(read, paints, strict=True)],
        [(number, own.tone) for number, own in toned],
    )
