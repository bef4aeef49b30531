"""Prompt expansion: terse prompts become descriptions before they are rendered. Remembers
what it wrote; knows no job and no store."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
        self._turns = Turns()

    @property
    def fingerprint(self) -> str:
        return self._writer.fingerprint

    def expand(
        self, prompts: Sequence[str], *, progress: Callable[[], None] = lambda: None
    ) -> list[str]:
        """The descriptions of the prompts, in order. Every word of a prompt that means
        something is in its description; one that is long already stays as it is. progress:
        told after each batch."""
        found: dict[str, str] = {}
        todo = list(dict.fromkeys(prompts))
        while todo:
            with self._turns.mine(progress):
                found |= {prompt: self._known[prompt] for prompt in todo if prompt in self._known}
                new = [prompt for prompt in todo if prompt not in found]
                fitting = [prompt for prompt in new if self._writer.fits(prompt)]
                told = {prompt: prompt for prompt in new if prompt not in fitting}
                if part := fitting[:ROWS]:
                    written = self._writer.write(part)
                    told |= {p: words.kept(p, one) for p, one in zip(part, written, strict=True)}
                found |= told
                self._remember(found)
            progress()
            todo = fitting[ROWS:]
        return [found[prompt] for prompt in prompts]

    def _remember(self, found: dict[str, str]) -> None:
        for prompt, text in found.items():
            self._known[prompt] = text
            self._known.move_to_end(prompt)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


class Turns:
    """A lock that goes to who has waited longest: a single picture's prompt waits for one batch
    of others, not for a lease of them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    @contextmanager
    def mine(self, progress: Callable[[], None]) -> Iterator[None]:
        """progress: told each second of waiting; what it raises ends that."""
        me = object()
        with self._changed:
            self._waiting.append(me)
        try:
            while not self._first(me):
                progress()
            yield
        finally:
            with self._changed:
                self._waiting.remove(me)
                self._changed.notify_all()

    def _first(self, me: object) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._waiting[0] is me, timeout=1.0)


def opened(data_dir: Path) -> Expander | None:
    """The expander of this machine; None when its weights were not pulled."""
    digest = weights.digest(data_dir)
    if digest is None:
        return None
    folder = weights.folder(data_dir)
    adapter = ADAPTER if lora.fits(ADAPTER, folder / "config.json") else None
    return Expander(Writer(folder, digest=digest, adapter=adapter))
