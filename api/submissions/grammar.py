"""The syntax of dynamicprompts under guard: wildcards only from the request, each value
parsed once, and a deadline that also stops an expansion that yields nothing."""

from __future__ import annotations

import random
import re
import threading
import time
import warnings
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias, cast

from dynamicprompts.commands import (
    Command,
    LiteralCommand,
    VariantCommand,
    VariantOption,
    WildcardCommand,
)
from dynamicprompts.enums import SamplingMethod
from dynamicprompts.parser.config import default_parser_config
from dynamicprompts.parser.parse import get_cached_parser
from dynamicprompts.parser.parse import parse as parse_template
from dynamicprompts.samplers.combinatorial import CombinatorialSampler
from dynamicprompts.samplers.random import RandomSampler
from dynamicprompts.sampling_context import SamplingContext
from dynamicprompts.sampling_result import SamplingResult
from dynamicprompts.wildcards import WildcardManager
from dynamicprompts.wildcards.values import WildcardValues
from pyparsing import ParseException

from promptmill import errors

Results: TypeAlias = Generator[SamplingResult, None, None]
EARNED = 0.005  # seconds per prompt
_SYNTAX = re.compile(r"[{}$%]|__")  # text without any of these is literal
# Characters of a prompt that the grammar would take for comments or broken commands; they
# pass through it as noncharacters. `%{`, `${` and `$$` keep their meaning.
_SHIELDED = re.compile(r"#|/(?=[/*])|%(?!\{)|(?<!\$)\$(?![{$])")
_SHIELD = {"#": "\ufdd0", "/": "\ufdd1", "%": "\ufdd2", "$": "\ufdd3"}
_parsing = threading.Lock()  # pyparsing shares one grammar among all threads
with warnings.catch_warnings():  # the library builds its grammar with old names of pyparsing
    warnings.simplefilter("ignore", DeprecationWarning)
    get_cached_parser(default_parser_config)
_BARE = str.maketrans({shield: char for char, shield in _SHIELD.items()})


class Deadline:
    """Time to expand a template: `patience` seconds and EARNED more with each prompt, never
    more than `patience` ahead. Raises `errors.BadRequest` when it is used up."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.end = time.monotonic() + patience

    def earn(self, held: float) -> None:
        """A prompt was made and then held for `held` seconds by whoever consumes it."""
        latest = time.monotonic() + self.patience
        self.end = min(latest, self.end + held + EARNED)

    def check(self) -> None:
        if time.monotonic() > self.end:
            raise errors.BadRequest("the template takes too long to expand", param="template")


@contextmanager
def refusing() -> Iterator[None]:
    """What the library raises on a template that makes no sense, as `errors.BadRequest`."""
    try:
        yield
    except (
        ParseException,
        AssertionError,
        AttributeError,
        LookupError,
        RuntimeError,  # RecursionError among them
        TypeError,
        ValueError,
    ) as error:
        text = str(error).partition("\n")[0][:200]
        raise errors.BadRequest(
            f"the template cannot be expanded: {text or type(error).__name__}", param="template"
        ) from error


def parse(text: str) -> Command:
    """Comments do not exist in templates: `#` and `//` are text. Raises `errors.BadRequest`."""
    with refusing():
        shielded = _SHIELDED.sub(lambda match: _SHIELD[match[0]], text)
        if not _SYNTAX.search(shielded):
            return LiteralCommand(text)
        with _parsing:
            return parse_template(shielded)


def bare(text: str) -> str:
    """What was sampled, with the characters back that `parse` had put away."""
    return text.translate(_BARE)


class Wildcards(WildcardManager):
    """The wildcards of one request. Never touches a disk; an unknown one is an error."""

    def __init__(self, lists: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__()
        self.lists = {name: WildcardValues.from_items(values) for name, values in lists.items()}
        self.parsed: dict[str, Command] = {}

    def get_values(self, wildcard: str) -> WildcardValues:
        if wildcard not in self.lists:
            raise errors.BadRequest(
                f"there is no wildcard {str(wildcard)[:100]!r}", param="wildcards"
            )
        return self.lists[wildcard]

    def command(self, value: str) -> Command:
        found = self.parsed.get(value)
        if found is None:
            found = self.parsed[value] = parse(value)
        return found


class _Guarded:
    """What both samplers share: the deadline, and wildcards whose values are kept parsed."""

    deadline: Deadline

    def generator_from_command(self, command: Command, context: SamplingContext) -> Results:
        self.deadline.check()
        return super().generator_from_command(command, context)  # type: ignore[misc,no-any-return]

    def _values(self, command: WildcardCommand, context: SamplingContext) -> list[Command]:
        manager = cast(Wildcards, context.wildcard_manager)
        name = next(iter(context.sample_prompts(command.wildcard, 1))).text
        commands = []
        for value in manager.get_values(name).string_values:
            self.deadline.check()
            commands.append(manager.command(value))
        return commands

    def _get_variant(self, command: VariantCommand, context: SamplingContext) -> Results:
        if len(command.values) == 1 and isinstance(command.values[0], WildcardCommand):
            values = self._values(command.values[0], context)
            command = VariantCommand(
                [VariantOption(value) for value in values],
                min(command.min_bound, len(values)),
                min(command.max_bound, len(values)),
                command.separator,
                command.sampling_method,
            )
        yield from super()._get_variant(command, context)  # type: ignore[misc]


class _Combinatorial(_Guarded, CombinatorialSampler):
    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline

    def _get_wildcard(self, command: WildcardCommand, context: SamplingContext) -> Results:
        values = self._values(command, context)
        inner = context.with_variables(command.variables)
        for value in values:
            yield from inner.sample_prompts(value)


class _Random(_Guarded, RandomSampler):
    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline

    def _get_wildcard(self, command: WildcardCommand, context: SamplingContext) -> Results:
        values = self._values(command, context)
        inner = context.with_variables(command.variables)
        while True:
            yield from inner.sample_prompts(context.rand.choice(values), 1)


def context(
    wildcards: Wildcards, method: SamplingMethod, deadline: Deadline, **more: Any
) -> SamplingContext:
    """A context that samples by `method`; cyclical sampling is not offered."""
    return SamplingContext(
        default_sampling_method=method,
        wildcard_manager=wildcards,
        samplers={
            SamplingMethod.COMBINATORIAL: _Combinatorial(deadline),
            SamplingMethod.RANDOM: _Random(deadline),
        },
        rand=random.Random(0),
        **more,
    )
