"""A row becomes items: columns renamed, fields validated, defaults applied, the product
over listed defaults and the `n` samples spelled out, seeds settled. No I/O but what
`sources` does."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from api.submissions import extras
from api.submissions import fields as item_fields
from api.submissions.head import PRODUCT_ORDER, Head
from api.submissions.limits import Limits
from api.submissions.misspelt import Misspelt
from api.submissions.readers import Row
from api.submissions.settling import Variant, settled
from api.submissions.sources import Sources
from promptmill import errors, jobs


class Draft(NamedTuple):
    """The fields of `jobs.Item` in its order; a tuple, since millions are made and a
    frozen dataclass takes ten times as long to make."""

    index: int  # type: ignore[assignment]  # hides tuple.index
    row: int
    sample: int
    prompt: str
    seed: int
    width: int
    height: int
    negative_prompt: str
    steps: int
    guidance: float
    task: str
    source: str | None
    mask: str | None
    strength: float
    lora: str
    min_score: float | None
    max_rerolls: int
    expand: bool
    custom_id: str | None
    metadata: Mapping[str, Any]

    def item(self) -> jobs.Item:
        return jobs.Item(*self)


_NOTHING: dict[str, Any] = {}


class Rows:
    """Turns the rows of one submission into drafts of items, in index order.

    The images of a row are the product of the listed defaults that it does not set itself
    (`head.PRODUCT_ORDER`, the last varies fastest), each `n` times; `sample` counts
    through all of them. A seed that is given is used by the first of its n, the k-th
    after it takes `derive_seed(seed, k)`; without one image i takes
    `derive_seed(job seed, i)`. A field of the row wins over the default.
    """

    def __init__(self, head: Head, limits: Limits, sources: Sources, *, textual: bool) -> None:
        self.head = head
        self.limits = limits
        self.textual = textual
        self._sources = sources
        self.warnings = head.warnings
        self.rows = 0  # read so far
        self.images = 0
        parsers = item_fields.Parsers(head.model, textual=textual, max_n=limits.max_n)
        mapped = set(head.columns.values())
        self._targets = {
            **{name: (name, p) for name, p in parsers.by_name.items() if name not in mapped},
            **{column: (name, parsers.by_name[name]) for column, name in head.columns.items()},
        }
        self._misspelt = Misspelt(self._targets)
        self._prompt_column = head.column("prompt")
        self._prompt = parsers.prompt
        self._short_columns = self._prompt_column, head.column("seed"), head.column("id")
        self._short: tuple[Any, ...] = ()  # the fields from width to expand
        self._short_until = 0  # rows
        self._seed: int | None = None  # of a row that gives none
        caps = head.model.caps
        usual = {
            "task": caps.tasks[0],
            "size": caps.sizes[0],
            "negative_prompt": "",
            "steps": caps.steps[1],
            "guidance": caps.guidance[1],
            "lora": "",
            "max_rerolls": 0,
            "expand": False,
        }
        if "strength" not in caps.parameters:
            usual["strength"] = 1.0  # not what is usual for the task: nothing comes of it
        self._base = {**dict.fromkeys(PRODUCT_ORDER), **usual, **self._taken(head.defaults.one)}
        self._many = [(name, self._taken_all(name, many)) for name, many in head.defaults.many]
        self._plain: list[Variant] | None = None  # of a row that sets nothing itself

    def drafts(self, rows: Iterable[Row]) -> Iterator[Draft]:
        """Raises `errors.BadRow`, `errors.UnsupportedParameter` or `errors.TooLarge` with
        `line` and `param`."""
        for row in rows:
            draft = self._usual(row[1])
            if draft is None:
                yield from self.of(row)
            else:
                yield draft

    def _usual(self, given: Mapping[str, Any]) -> Draft | None:
        """The image of a row that gives at most a prompt, a seed and an id, as nearly all rows
        do. None for any other, and for one with something wrong: `of` says what."""
        row, index = self.rows, self.images
        if row >= self._short_until or index >= self.limits.max_images:
            return None
        prompt, seed, custom_id = map(given.get, self._short_columns)
        if len(given) != (prompt is not None) + (seed is not None) + (custom_id is not None):
            return None
        try:
            prompt = self._prompt(prompt)
            if custom_id is not None:
                custom_id = item_fields.custom_id(custom_id) or None
        except errors.Error:
            return None
        if seed is None:
            seed = self._seed
            if seed is None:
                seed = jobs.derive_seed(self.head.job.seed, index)
        elif type(seed) is not int or not 0 <= seed <= item_fields.MAX_SEED:
            return None
        self.rows, self.images = row + 1, index + 1
        place = index, row, 0, prompt, seed
        return tuple.__new__(Draft, (*place, *self._short, custom_id, _NOTHING))

    def of(self, row: Row) -> Iterable[Draft]:
        """The images of one row, the next one of the submission."""
        line, given = row
        number = self.rows
        self.rows = number + 1
        if number >= self.limits.max_rows:
            raise errors.TooLarge(f"more than {self.limits.max_rows} rows", line=line, param="rows")
        try:
            values, metadata = self._read(line, given)
            variants = self._variants_of(values)
        except errors.Error as error:
            error.line = line if error.refuses else None  # an outage is no fault of the row
            raise
        n = values.get("n", self.head.defaults.n)
        if self.images + len(variants) * n > self.limits.max_images:
            raise errors.TooLarge(
                f"more than {self.limits.max_images} images", line=line, param="n"
            )
        return self._make(number, values, metadata, variants, n)

    def _read(self, line: int, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """(item fields that the row sets, the rest as metadata)."""
        values: dict[str, Any] = {}
        metadata = _NOTHING
        targets = self._targets
        for column, value in given.items():
            if column in targets:
                name, parse = targets[column]
                if value is None or (value == "" and name != "prompt"):
                    continue
                try:
                    values[name] = parse(value)
                except errors.UnsupportedParameter as error:
                    if not self.head.warn:
                        raise
                    self.warnings.add(name, error.message, line=line)
            else:
                if metadata is _NOTHING:
                    metadata = {}
                metadata[column] = value
                if (meant := self._misspelt.meant(column)) is not None:
                    told = f"kept as metadata: did you mean {meant}?"
                    self.warnings.add(column, told, line=line)
                if column == "model" and value not in (None, "", self.head.model.name):
                    told = f"kept as metadata: all rows of a job run {self.head.model.name}"
                    self.warnings.add("model", told, line=line)
        if "prompt" not in values:
            values["prompt"] = self._inherited(values, given)
        if "source" in values or "mask" in values:
            values = self._taken(values)
        return values, extras.checked(metadata) if metadata else metadata

    def _inherited(self, values: Mapping[str, Any], given: Mapping[str, Any]) -> str:
        """The prompt of the earlier image that the row, which has none, is a variation of."""
        usual = {"task": self._base["task"], **self.head.defaults.one}
        usual |= {name: None for name, _ in self._many}
        task, source = (values.get(name, usual.get(name)) for name in ("task", "source"))
        told = ""
        if task == jobs.VARIATION and source is not None:
            if (prompt := self._sources.prompt(source)) is not None:
                return self._prompt(prompt)
            told = ": a variation has its source's only where that is an earlier image (img_…)"
        elif (meant := self._misspelt.instead(self._prompt_column, given)) is not None:
            told = f": is {meant!r} meant for it?"
        raise errors.BadRow(f"the row has no {self._prompt_column}{told}", param="prompt")

    def _taken(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The same values, with the pictures that its references stand for."""
        return {
            name: self._sources.take(name, value) if name in ("source", "mask") else value
            for name, value in values.items()
        }

    def _taken_all(self, name: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(self._taken({name: value})[name] for value in values)

    def _variants_of(self, values: Mapping[str, Any]) -> list[Variant]:
        """Rows of a prompt, an id and a seed, which is nearly all of them, are settled once."""
        seeded = "seed" in values
        if len(values) - ("id" in values) - seeded > 1 or (seeded and self._many):
            return list(map(settled, self._variants(values)))
        if self._plain is None:
            self._plain = list(map(settled, self._variants(_NOTHING)))
            self._shorten(self._plain)
        if seeded:
            return [(*variant[:-1], values["seed"]) for variant in self._plain]
        return self._plain

    def _shorten(self, plain: list[Variant]) -> None:
        """From now on `_usual` may make a row's image, if it has one."""
        if len(plain) == self.head.defaults.n == 1:
            (task, size, source, mask, negative, steps, guidance, *last, self._seed) = plain[0]
            self._short = (*size, negative, steps, guidance, task, source, mask, *last)
            self._short_until = self.limits.max_rows

    def _variants(self, values: Mapping[str, Any]) -> list[Variant]:
        base = self._base
        listed = {name: many for name, many in self._many if name not in values}
        if not listed:
            return [tuple([values.get(name, base[name]) for name in PRODUCT_ORDER])]
        choices = [listed.get(name) or (values.get(name, base[name]),) for name in PRODUCT_ORDER]
        if self._product(choices) > self.limits.max_images:
            raise errors.TooLarge(f"more than {self.limits.max_images} images", param="defaults")
        return list(itertools.product(*choices))

    @staticmethod
    def _product(choices: Iterable[tuple[Any, ...]]) -> int:
        total = 1
        for values in choices:
            total *= len(values)
        return total

    def _make(
        self,
        row: int,
        values: Mapping[str, Any],
        metadata: Mapping[str, Any],
        variants: list[Variant],
        n: int,
    ) -> Iterable[Draft]:
        first = self.images
        self.images = first + len(variants) * n
        kept = values.get("id"), metadata
        prompt = values["prompt"]
        if len(variants) == n == 1:
            return (self._draft((first, row, 0, prompt), variants[0], 0, kept),)
        return (
            self._draft((first + sample, row, sample, prompt), variant, sample % n, kept)
            for sample, variant in enumerate(
                itertools.chain.from_iterable(itertools.repeat(v, n) for v in variants)
            )
        )

    def _draft(
        self, place: tuple[int, int, int, str], variant: Variant, k: int, kept: tuple[Any, ...]
    ) -> Draft:
        """place: index, row, sample, prompt. k: which of its n. kept: what all images of
        the row share."""
        task, size, source, mask, negative, steps, guidance, *last, seed = variant
        if seed is None:
            seed = jobs.derive_seed(self.head.job.seed, place[0])
        elif k:
            seed = jobs.derive_seed(seed, k)
        custom_id, metadata = kept
        return tuple.__new__(
            Draft,
            (*place, seed, *size, negative, steps, guidance, task, source, mask, *last,
             custom_id, metadata),
        )  # fmt: skip
