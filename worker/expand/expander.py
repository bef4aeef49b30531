"""Prompt expansion: terse prompts become descriptions before they are rendered. Remembers
what it wrote; knows no job and no store."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from worker.expand import lora, weights, words
from worker.expand.writer import ROWS, Writer

REMEMBERED = 20_000  # prompts
ADAPTER = Path(__file__).parent.parent / "weights" / "expander" / "adapter.safetensors"


class Writing(Protocol):
    """A language model, as `Writer` is one."""

    fingerprint: str

    def fits(self, prompt: str) -> bool: ...

    def write(self, prompts: Sequence[str]) -> list[str]: ...


class Expander:
    """Thread-safe. The same prompt has the same description whatever it comes with."""

    def __init__(self, writer: Writing) -> None:
        self._writer = writer
        self._known: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def fingerprint(self) -> str:
        return self._writer.fingerprint

    def expand(
        self, prompts: Sequence[str], *, progress: Callable[[], None] = lambda: None
    ) -> list[str]:
        """The descriptions of the prompts, in order. Every word of a prompt that means
        something is in its description; one that is long already stays as it is. progress:
        told after each batch."""
        with self._lock:
            found = {prompt: self._known[prompt] for prompt in prompts if prompt in self._known}
            new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in found]
            found |= {prompt: prompt for prompt in new if not self._writer.fits(prompt)}
            todo = [prompt for prompt in new if prompt not in found]
            for start in range(0, len(todo), ROWS):
                part = todo[start : start + ROWS]
                written = self._writer.write(part)
                found |= {p: words.kept(p, answer) for p, answer in zip(part, written, strict=True)}
                progress()
            self._remember(found)
        return [found[prompt] for prompt in prompts]

    def _remember(self, found: dict[str, str]) -> None:
        for prompt, text in found.items():
            self._known[prompt] = text
            self._known.move_to_end(prompt)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


def opened(data_dir: Path) -> Expander | None:
    """The expander of this machine; None when its weights were not pulled."""
    digest = weights.digest(data_dir)
    if digest is None:
        return None
    folder = weights.folder(data_dir)
    adapter = ADAPTER if lora.fits(ADAPTER, folder / "config.json") else None
    return Expander(Writer(folder, digest=digest, adapter=adapter))
