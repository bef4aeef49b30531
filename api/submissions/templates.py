"""Prompts from a template: `a {color} {animal}, __style__, {sunny|rainy}`. Variables make
the product (or seeded random draws), the rest of the syntax is that of dynamicprompts.
Wildcards come with the request; nothing is ever read from the server's disk."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from dynamicprompts.commands import (
    Command,
    LiteralCommand,
    SequenceCommand,
    VariantCommand,
    WildcardCommand,
)
from dynamicprompts.commands.variable_commands import VariableAccessCommand
from dynamicprompts.enums import SamplingMethod
from dynamicprompts.sampling_context import SamplingContext

from api.submissions import grammar
from api.submissions.readers import Row
from promptmill import errors, jobs

Expansion: TypeAlias = tuple[str, dict[str, str]]  # (prompt, what was chosen)

MAX_TEMPLATE = 16_000  # characters
MAX_CHOICES = 1_000_000  # values of all variables and wildcards together
PATIENCE = 5.0  # seconds
SAMPLING = ("combinatorial", "random")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)
_SLOT = re.compile(
    r"\{\{\s*([A-Za-z_][A-Za-z0-9_-]*)\s*\}\}|(?<![$%])\{\s*([A-Za-z_][A-Za-z0-9_-]*)\s*\}",
    re.ASCII,
)
_SYNTAX = re.compile(r"[{}]|__")
_METHODS = {
    "combinatorial": SamplingMethod.COMBINATORIAL,
    "random": SamplingMethod.RANDOM,
}


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed request. text: the template with its slots written `${name}`."""

    text: str
    variables: Mapping[str, tuple[str, ...]]
    wildcards: Mapping[str, tuple[str, ...]]
    sampling: str = "combinatorial"
    count: int | None = None


def parse(document: Mapping[str, Any]) -> Template:
    """From the fields template, variables, wildcards, sampling, count of a JSON document.
    Raises `errors.BadRequest` naming the field."""
    text = document.get("template")
    if not isinstance(text, str) or not text.strip():
        raise errors.BadRequest("template must be a string", param="template")
    if len(text) > MAX_TEMPLATE:
        raise errors.BadRequest(f"template is over {MAX_TEMPLATE} characters", param="template")
    wildcards = _lists(document.get("wildcards"), "wildcards", {})
    variables = _lists(document.get("variables"), "variables", wildcards)
    total = sum(len(v) for lists in (wildcards, variables) for v in lists.values())
    if total > MAX_CHOICES:
        raise errors.BadRequest(f"more than {MAX_CHOICES} choices", param="variables")
    sampling = document.get("sampling", "combinatorial")
    if sampling not in SAMPLING:
        raise errors.BadRequest(f"sampling must be one of {', '.join(SAMPLING)}", param="sampling")
    count = document.get("count")
    if count is not None and (type(count) is not int or count < 1):
        raise errors.BadRequest("count must be a positive integer", param="count")
    if sampling == "random" and count is None:
        raise errors.BadRequest("random sampling needs a count", param="count")
    if re.search(r"[{_]\s*@", text) or (sampling == "random" and re.search(r"[{_]\s*!", text)):
        raise errors.BadRequest(
            "the template asks for a way of sampling that is not offered", param="template"
        )
    wildcards = {
        name: tuple(_slots(value, variables) for value in values)
        for name, values in wildcards.items()
    }
    template = Template(_slots(text, variables), variables, wildcards, sampling, count)
    _check_names(template)
    return template


def rows(template: Template, *, seed: int) -> Iterator[Row]:
    """(number from 1, {"prompt", "variables": {name: chosen}}), lazily and always the same
    for the same template and seed; row i of a random template depends on (seed, i) alone.
    Raises `errors.BadRequest` for a template that cannot be expanded, or not in time."""
    expansions = _plain(template, seed) if _is_plain(template) else _dynamic(template, seed)
    number = 0
    with grammar.refusing():
        for prompt, chosen in itertools.islice(expansions, template.count):
            number += 1
            yield number, {"prompt": prompt, "variables": chosen} if chosen else {"prompt": prompt}


def at_least(template: Template) -> int:
    """How many prompts the template makes at the least: one that is far too large is refused
    by this before it is expanded."""
    if template.count is not None:
        return 0
    variables = math.prod(len(values) for values in template.variables.values())
    if _is_plain(template):
        return variables
    with grammar.refusing():
        return variables * _least(grammar.parse(template.text), template.wildcards)


def _least(command: Command, wildcards: Mapping[str, tuple[str, ...]]) -> int:
    if isinstance(command, SequenceCommand):
        return math.prod(_least(token, wildcards) for token in command.tokens)
    if isinstance(command, VariantCommand):
        single = command.min_bound <= 1 <= command.max_bound
        if not single or command.sampling_method is SamplingMethod.RANDOM:
            return 1
        return sum(_least(option.value, wildcards) for option in command.variants)
    if isinstance(command, WildcardCommand) and isinstance(command.wildcard, str):
        return max(1, len(wildcards.get(command.wildcard, ())))
    return 1


def _lists(
    value: Any, param: str, wildcards: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise errors.BadRequest(f"{param} must be an object of lists", param=param)
    lists: dict[str, tuple[str, ...]] = {}
    for name, values in value.items():
        if not _NAME.fullmatch(name) or "__" in name:
            raise errors.BadRequest(f"{name[:100]!r} is no name", param=param)
        if isinstance(values, str) and values.strip("_") in wildcards:
            lists[name] = wildcards[values.strip("_")]
            continue
        if not isinstance(values, list) or not values:
            raise errors.BadRequest(f"{param}.{name} must be a list", param=param)
        if not all(type(v) in (str, int, float) for v in values):
            raise errors.BadRequest(f"{param}.{name} must hold strings", param=param)
        lists[name] = tuple(str(v) for v in values)
    return lists


def _slots(text: str, variables: Mapping[str, Any]) -> str:
    """`{name}` and `{{name}}` become `${name}`, the form that dynamicprompts knows."""

    def slot(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in variables:
            raise errors.BadRequest(
                f"the template names no variable {name!r}: `variables` has "
                f"{', '.join(variables) or 'none'}",
                param="template",
            )
        return f"${{{name}}}"

    return _SLOT.sub(slot, text)


def _check_names(template: Template) -> None:
    for name in template.variables:
        use = re.compile(r"\$\{\s*" + re.escape(name) + r"\s*[:}]")
        texts = itertools.chain([template.text], *template.wildcards.values())
        if not any(use.search(text) for text in texts):
            raise errors.BadRequest(
                f"variable {name} does not occur in the template", param="variables"
            )


def _is_plain(template: Template) -> bool:
    """Only slots: then nothing needs to be parsed, and nothing can surprise."""
    text = template.text
    for name in template.variables:
        text = text.replace(f"${{{name}}}", "")
    return not _SYNTAX.search(text)


def _choices(template: Template, seed: int) -> Iterator[tuple[random.Random, dict[str, str]]]:
    """The values of the variables, combination by combination, the last variable fastest;
    or drawn, without end. Each comes with the random stream of its row."""
    names = list(template.variables)
    if template.sampling == "random":
        for row in itertools.count():
            rand = random.Random(jobs.derive_seed(seed, row))
            yield rand, {name: rand.choice(template.variables[name]) for name in names}
    for row, values in enumerate(itertools.product(*template.variables.values())):
        yield random.Random(jobs.derive_seed(seed, row)), dict(zip(names, values, strict=True))


def _plain(template: Template, seed: int) -> Iterator[Expansion]:
    names = "|".join(map(re.escape, template.variables))
    parts = re.split(r"\$\{(" + names + r")\}", template.text) if names else [template.text]
    for _, chosen in _choices(template, seed):
        yield "".join([chosen[p] if i % 2 else p for i, p in enumerate(parts)]), chosen


def _dynamic(template: Template, seed: int) -> Iterator[Expansion]:
    deadline = grammar.Deadline(PATIENCE)
    command = grammar.parse(template.text)
    tokens = command.tokens if isinstance(command, SequenceCommand) else [command]
    method = _METHODS[template.sampling]
    plain = grammar.context(grammar.Wildcards(template.wildcards), method, deadline)
    for rand, chosen in _choices(template, seed):
        variables: dict[str, Command] = {
            name: LiteralCommand(value) for name, value in chosen.items()
        }
        context = dataclasses.replace(plain, rand=rand, variables=variables)
        found = _sample(tokens, context, chosen)
        for expansion in itertools.islice(found, 1 if template.sampling == "random" else None):
            handed = time.monotonic()
            yield expansion
            deadline.earn(time.monotonic() - handed)


def _sample(
    tokens: list[Command], context: SamplingContext, chosen: Mapping[str, str]
) -> Iterator[Expansion]:
    """The product of the tokens' texts, the last token fastest. A token that is drawn at
    random is drawn anew for each."""
    rest, context = context.process_variable_assignments(tokens)
    names = _token_names(rest)
    endless = {
        at: context.generator_from_command(token)
        for at, token in enumerate(rest)
        if context.get_effective_sampling_method(token) is SamplingMethod.RANDOM
    }
    finite = [at for at in range(len(rest)) if at not in endless]
    texts = [""] * len(rest)

    def walk(depth: int) -> Iterator[Expansion]:
        if depth < len(finite):
            at = finite[depth]
            for result in context.generator_from_command(rest[at]):
                texts[at] = grammar.bare(result.text)
                yield from walk(depth + 1)
            return
        for at, drawn in endless.items():
            texts[at] = grammar.bare(next(drawn).text)
        picked = {name: text for name, text in zip(names, texts, strict=True) if name}
        yield "".join(texts), {**chosen, **picked}

    return walk(0)


def _token_names(tokens: list[Command]) -> list[str | None]:
    """A name for the choice that each token makes: its wildcard's, else choice_1, ..."""
    seen: dict[str, int] = {}
    names: list[str | None] = []
    variants = itertools.count(1)
    for token in tokens:
        if isinstance(token, LiteralCommand | VariableAccessCommand):
            names.append(None)
            continue
        if isinstance(token, WildcardCommand) and isinstance(token.wildcard, str):
            name = token.wildcard
            seen[name] = seen.get(name, 0) + 1
            names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
        else:
            names.append(f"choice_{next(variants)}")
    return names
