"""What an operator says of a checkpoint that its files do not: a JSON document that
PROMPTMILL_MODEL_OPTIONS names. Every field is optional."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from promptmill import errors

_SIZE = re.compile(r"([1-9][0-9]{1,4})x([1-9][0-9]{1,4})", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][\w-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Options:
    """sizes: (width, height) in pixels. steps, guidance: (least, usual, most). batch_shapes:
    ascending. loras: name → folder, file or hf:ORG/NAME of an adapter. prompt_tokens: of an
    autoregressive model's prompt, the longest."""

    sizes: tuple[tuple[int, int], ...] = ()
    steps: tuple[int, int, int] | None = None
    guidance: tuple[float, float, float] | None = None
    batch_shapes: tuple[int, ...] = (1, 2, 4, 8)
    loras: Mapping[str, str] = field(default_factory=dict)
    prompt_tokens: int = 256


def read(path: str) -> Options:
    """The options in the file at `path`; the usual ones for an empty path. Raises
    `errors.SettingInvalid` naming the field that is wrong."""
    if not path:
        return Options()
    try:
        given = json.loads(Path(path).expanduser().read_text())
    except (OSError, ValueError) as error:
        raise _wrong(f"{path} cannot be read: {error}") from error
    if not isinstance(given, dict):
        raise _wrong(f"{path} must hold a JSON object")
    known = {f.name for f in fields(Options)}
    if unknown := sorted(set(given) - known):
        raise _wrong(f"{path} has an unknown field {unknown[0]!r} (known: {sorted(known)})")
    return Options(**{name: _READERS[name](name, value) for name, value in given.items()})


def _wrong(text: str) -> errors.SettingInvalid:
    return errors.SettingInvalid(
        f"PROMPTMILL_MODEL_OPTIONS: {text}", param="PROMPTMILL_MODEL_OPTIONS"
    )


def _sizes(name: str, value: Any) -> tuple[tuple[int, int], ...]:
    texts = value if isinstance(value, list) else []
    found = [_SIZE.fullmatch(text) for text in texts if isinstance(text, str)]
    if not found or len(found) != len(texts) or None in found:
        raise _wrong(f'{name} must be a list like ["512x512", "768x512"]')
    return tuple((int(match[1]), int(match[2])) for match in found if match)


def _numbers(kind: type[float], name: str, value: Any) -> tuple[Any, ...]:
    numbers = isinstance(value, list) and all(
        isinstance(n, int | kind) and not isinstance(n, bool) and 0 <= n < math.inf for n in value
    )
    if not numbers or not value or list(value) != sorted(value):
        raise _wrong(f"{name} must be a list of numbers, ascending")
    return tuple(kind(n) for n in value)


def _bounds(kind: type[float], name: str, value: Any) -> tuple[Any, ...]:
    found = _numbers(kind, name, value)
    if len(found) != 3:
        raise _wrong(f"{name} must be [least, usual, most]")
    return found


def _steps(name: str, value: Any) -> tuple[Any, ...]:
    found = _bounds(int, name, value)
    if found[0] < 1:
        raise _wrong(f"{name} must begin at 1 at least")
    return found


def _shapes(name: str, value: Any) -> tuple[int, ...]:
    found = _numbers(int, name, value)
    if found[0] < 1 or len(set(found)) != len(found):
        raise _wrong(f"{name} must be different numbers from 1 on")
    return found


def _loras(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(
        _NAME.fullmatch(key) and isinstance(place, str) for key, place in value.items()
    ):
        raise _wrong(
            f'{name} must be an object like {{"pixel-art": "FOLDER or hf:ORG/NAME"}}, its names of '
            "letters, digits, _ and -"
        )
    return dict(value)


def _count(name: str, value: Any) -> int:
    if not isinstance(value, int) or not 16 <= value <= 4096:
        raise _wrong(f"{name} must be a whole number from 16 to 4096")
    return value


_READERS: Mapping[str, Any] = {
    "sizes": _sizes,
    "steps": _steps,
    "guidance": lambda name, value: _bounds(float, name, value),
    "batch_shapes": _shapes,
    "loras": _loras,
    "prompt_tokens": _count,
}
