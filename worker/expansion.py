"""What prompt expansion does to the items of a lease and to what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from promptmill.jobs import Item
from worker.expand.expander import Expander
from worker.outcomes import Fault, Outcome


class Expansion:
    """By this worker's text expander, or by none."""

    def __init__(self, expander: Expander | None) -> None:
        self._expander = expander

    def items(self, items: Sequence[Item], *, progress: Callable[[], None]) -> list[Item | Fault]:
        """The items, in order, those that ask for it with their prompts written out."""
        asking = [item.prompt for item in items if item.expand]
        if not asking:
            return list(items)
        if self._expander is None:
            lacking = Fault("expander_missing", "this worker has no text expander")
            return [lacking if item.expand else item for item in items]
        texts = iter(self._expander.expand(asking, progress=progress))
        return [replace(item, prompt=next(texts)) if item.expand else item for item in items]

    def signed(self, outcome: Outcome) -> Outcome:
        """A picture of a prompt that was written out also depends on who wrote it."""
        if self._expander is None or isinstance(outcome, Fault) or not outcome.item.expand:
            return outcome
        fingerprint = f"{outcome.fingerprint}-x{self._expander.fingerprint[:6]}"
        return replace(outcome, fingerprint=fingerprint)
