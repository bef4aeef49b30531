"""The block-list of prompts: a file with one pattern a line, words or /regular expressions/."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from promptmill import errors
from promptmill.jobs import Item


class Blocklist:
    """Refuses an item whose prompt or negative prompt has a pattern in it. Letters are
    compared folded (NFKC, without case); words match as whole words."""

    def __init__(self, lines: Iterable[str], *, source: str = "the block-list") -> None:
        """Empty lines and lines that begin with # say nothing. Raises
        `errors.SettingInvalid` naming the line of a pattern that is none."""
        self._patterns: list[tuple[int, re.Pattern[str]]] = []
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            try:
                self._patterns.append((number, re.compile(_pattern(text))))
            except re.error as error:
                raise errors.SettingInvalid(
                    f"{source}, line {number}: {error}", param="PROMPTMILL_PROMPT_BLOCKLIST"
                ) from error

    @classmethod
    def read(cls, path: str) -> Blocklist:
        try:
            lines = Path(path).expanduser().read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise errors.SettingInvalid(
                f"PROMPTMILL_PROMPT_BLOCKLIST={path!r} cannot be read: {error}",
                param="PROMPTMILL_PROMPT_BLOCKLIST",
            ) from error
        return cls(lines, source=path)

    def verdict(self, item: Item) -> str | None:
        """Names the line, not the pattern: the list may be nobody's business but the farm's."""
        for name in ("prompt", "negative_prompt"):
            text = _folded(getattr(item, name))
            for number, pattern in self._patterns:
                if pattern.search(text):
                    return f"the {name} is refused by line {number} of this farm's block-list"
        return None


def _pattern(text: str) -> str:
    if len(text) > 2 and text.startswith("/") and text.endswith("/"):
        return f"(?i){text[1:-1]}"
    words = r"\s+".join(map(re.escape, _folded(text).split()))
    return rf"(?<!\w){words}(?!\w)"


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
