"""The fields of an item: how each value is read, and whether the model can honour it.
Shared by the defaults of a submission and by its rows."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from promptmill import errors, jobs
from promptmill.models import Model

MAX_SEED = (1 << jobs.SEED_BITS) - 1
MAX_ID = 256
MAX_REFERENCE = 512
MAX_REROLLS = 32
LEAST_STRENGTH = 0.001  # of a model's thousand steps one
WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_SIZE = re.compile(r"([1-9][0-9]{0,4})[xX]([1-9][0-9]{0,4})", re.ASCII)

NAMES = (
    "prompt",
    "negative_prompt",
    "seed",
    "n",
    "size",
    "steps",
    "guidance",
    "task",
    "source",
    "mask",
    "strength",
    "lora",
    "min_score",
    "max_rerolls",
    "expand",
    "id",
)
Parse = Callable[[Any], Any]


def integer(value: Any, *, name: str, least: int, most: int, textual: bool) -> int:
    """An integer; a whole float counts, and text does when `textual` (CSV, query)."""
    if textual and isinstance(value, str):
        value = _number(value.strip())
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise errors.BadRow(f"{name} must be an integer", param=name)
    if not least <= value <= most:
        raise errors.BadRow(f"{name} must be from {least} to {most}", param=name)
    return value


def number(value: Any, *, name: str, textual: bool) -> float:
    """A finite number; text counts when `textual`."""
    if textual and isinstance(value, str):
        value = _number(value.strip())
    if type(value) not in (int, float) or not math.isfinite(value):
        raise errors.BadRow(f"{name} must be a number", param=name)
    return float(value)


def _number(text: str) -> int | float | None:
    if len(text) > 40 or not text.isascii() or "_" in text:
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return None


def flag(value: Any, *, name: str, textual: bool) -> bool:
    """A boolean; one of the words for it, however they are cased, when `textual`."""
    if textual and isinstance(value, str):
        value = WORDS.get(value.strip().lower())
    if type(value) is not bool:
        raise errors.BadRow(f"{name} must be true or false", param=name)
    return value


def string(value: Any, *, name: str, most: int) -> str:
    """A string without NUL, at most `most` characters."""
    if not isinstance(value, str):
        raise errors.BadRow(f"{name} must be a string", param=name)
    if len(value) > most:
        raise errors.BadRow(f"{name} is longer than {most} characters", param=name)
    if "\0" in value:
        raise errors.BadRow(f"{name} holds a NUL character", param=name)
    return value


def custom_id(value: Any) -> str:
    """The caller's id; an integer is taken as text."""
    if type(value) is int:
        value = str(value)
    return string(value, name="id", most=MAX_ID)


class Parsers:
    """One parser for each field that a row may give, for one model. A parser returns the
    values of item fields; it raises `errors.BadRow` for a value that is wrong and
    `errors.UnsupportedParameter` for one that the model cannot honour."""

    def __init__(self, model: Model, *, textual: bool, max_n: int) -> None:
        self.model = model
        self.caps = model.caps
        self.textual = textual
        self.max_n = max_n
        self.by_name: Mapping[str, Parse] = {
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "seed": self.seed,
            "n": self.n,
            "size": self.size,
            "steps": self.steps,
            "guidance": self.guidance,
            "task": self.task,
            "source": lambda value: self.reference("source", value),
            "mask": lambda value: self.reference("mask", value),
            "strength": self.strength,
            "lora": self.lora,
            "min_score": self.min_score,
            "max_rerolls": self.max_rerolls,
            "expand": self.expand,
            "id": custom_id,
        }

    def prompt(self, value: Any) -> str:
        if type(value) is not str:
            raise errors.BadRow("prompt must be a string", param="prompt")
        if not value or value.isspace():
            raise errors.BadRow("prompt is empty", param="prompt")
        if len(value) > self.caps.max_prompt:
            raise errors.BadRow(
                f"prompt is longer than {self.caps.max_prompt} characters", param="prompt"
            )
        return value

    def negative_prompt(self, value: Any) -> str:
        given = string(value, name="negative_prompt", most=self.caps.max_prompt)
        return str(self._honoured("negative_prompt", given, ""))

    def seed(self, value: Any) -> int:
        return integer(value, name="seed", least=0, most=MAX_SEED, textual=self.textual)

    def n(self, value: Any) -> int:
        return integer(value, name="n", least=1, most=self.max_n, textual=self.textual)

    def size(self, value: Any) -> tuple[int, int]:
        match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise errors.BadRow('size must be "WIDTHxHEIGHT", such as "64x64"', param="size")
        width, height = int(match[1]), int(match[2])
        self.model.require_size(width, height)
        return width, height

    def steps(self, value: Any) -> int:
        least, usual, most = self.caps.steps
        given = integer(value, name="steps", least=1, most=100_000, textual=self.textual)
        self._honoured("steps", given, usual)
        return int(self._within("steps", given, least, most))

    def guidance(self, value: Any) -> float:
        least, usual, most = self.caps.guidance
        given = number(value, name="guidance", textual=self.textual)
        self._honoured("guidance", given, usual)
        return self._within("guidance", given, least, most)

    def strength(self, value: Any) -> float:
        given = number(value, name="strength", textual=self.textual)
        self._honoured("strength", given, 1.0)
        if not LEAST_STRENGTH <= given <= 1:
            raise errors.BadRow(f"strength must be from {LEAST_STRENGTH} to 1", param="strength")
        return given

    def lora(self, value: Any) -> str:
        given = string(value, name="lora", most=64)
        if given and given not in self.caps.loras:
            known = ", ".join(self.caps.loras) or "none"
            raise errors.UnsupportedParameter(
                f"model {self.model.name} has no adapter {given!r} (it has {known})", param="lora"
            )
        return given

    def min_score(self, value: Any) -> float:
        given = number(value, name="min_score", textual=self.textual)
        if not 0 <= given <= 1:
            raise errors.BadRow("min_score must be from 0 to 1", param="min_score")
        self._scored("min_score")
        return given

    def max_rerolls(self, value: Any) -> int:
        given = integer(value, name="max_rerolls", least=0, most=MAX_REROLLS, textual=self.textual)
        if given:
            self._scored("max_rerolls")
        return given

    def _scored(self, name: str) -> None:
        if not self.caps.scores:
            raise errors.UnsupportedParameter(
                f"model {self.model.name} does not score its pictures", param=name
            )

    def expand(self, value: Any) -> bool:
        given = flag(value, name="expand", textual=self.textual)
        if given and not self.caps.expander:
            raise errors.UnsupportedParameter(
                f"no worker of model {self.model.name} can expand prompts: run `promptmill models "
                "pull smollm2` where they run, and start them again",
                param="expand",
            )
        return given

    def task(self, value: Any) -> str:
        given = string(value, name="task", most=64)
        if given not in self.caps.tasks:
            known = ", ".join(self.caps.tasks)
            raise errors.UnsupportedParameter(
                f"model {self.model.name} has no task {given!r} (it has {known})", param="task"
            )
        return given

    def reference(self, name: str, value: Any) -> str:
        given = string(value, name=name, most=MAX_REFERENCE)
        honoured = jobs.SOURCE_TASKS if name == "source" else jobs.MASK_TASKS
        if not honoured.intersection(self.caps.tasks):
            raise errors.UnsupportedParameter(
                f"model {self.model.name} has no task that starts from a {name}", param=name
            )
        return given

    def _honoured(self, name: str, value: Any, usual: Any) -> Any:
        if value != usual and name not in self.caps.parameters:
            raise errors.UnsupportedParameter(
                f"model {self.model.name} does not honour {name}", param=name
            )
        return value

    def _within(self, name: str, value: float, least: float, most: float) -> float:
        if not least <= value <= most:
            raise errors.UnsupportedParameter(
                f"model {self.model.name} takes {name} from {least} to {most}", param=name
            )
        return value
