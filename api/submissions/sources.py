"""The pictures that rows start from: each reference is looked up, checked and copied to the
job once. A reference that cannot be used is refused by field; the caller knows the line."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from promptmill import errors, pictures

REMEMBERED = 10_000  # references: a row that repeats one of the last so many costs nothing


@dataclass(frozen=True, slots=True)
class Source:
    """A picture as items name it. transparent: it can be its own mask."""

    sha256: str
    transparent: bool


class Sources(Protocol):
    def take(self, name: str, reference: str) -> Source:
        """The picture that `reference`, given in the field `name`, stands for. Raises
        `errors.BadRow` with `param`."""
        ...

    def prompt(self, reference: str) -> str | None:
        """What the earlier image was asked for that is given as a `source`; None where
        `reference` is no image of the farm. Raises `errors.BadRow` with `param`."""
        ...


def no_prompt(reference: str) -> str | None:
    """Of sources of which none is an earlier image."""
    return None


class Taken:
    """read: the bytes behind a reference, or `errors.NotFound` or `errors.BadRow`. keep:
    told (sha256, bytes, content type) of each picture, to copy it; None in a dry run. prompt_of:
    the prompt behind a reference, None for what is no image, or `errors.NotFound`; asked for each
    row that needs it, since texts may be long."""

    def __init__(
        self,
        read: Callable[[str], bytes],
        keep: Callable[[str, bytes, str], None] | None,
        prompt_of: Callable[[str], str | None] = no_prompt,
    ) -> None:
        self._read = read
        self._keep = keep
        self._prompt_of = prompt_of
        self._known: OrderedDict[str, Source] = OrderedDict()

    def take(self, name: str, reference: str) -> Source:
        if (found := self._known.get(reference)) is not None:
            self._known.move_to_end(reference)
            return found
        with _named(name, reference):
            source = self._fetch(reference)
        self._known[reference] = source
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return source

    def prompt(self, reference: str) -> str | None:
        with _named("source", reference):
            return self._prompt_of(reference)

    def _fetch(self, reference: str) -> Source:
        data = self._read(reference)
        facts = pictures.check(data)
        sha256 = hashlib.sha256(data).hexdigest()
        if self._keep is not None:
            self._keep(sha256, data, f"image/{facts.format}")
        return Source(sha256, facts.transparent)


@contextmanager
def _named(name: str, reference: str) -> Iterator[None]:
    """What cannot be used is told by its field and reference."""
    try:
        yield
    except (errors.NotFound, errors.BadRow) as error:
        told = f"{name} {reference[:100]!r}: {error.message}"
        raise errors.BadRow(told, param=name) from error
