"""Checks of prompts before they are rendered and of pictures after: each says why it refuses,
and what is refused fails with that verdict. A new check is one class with one method and a
line in `from_settings`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from promptmill.jobs import Item
from promptmill.records import Work
from promptmill.settings import Settings
from worker.generators.base import Pixels
from worker.outcomes import REJECTED, Fault, Outcome, Picture


class PromptCheck(Protocol):
    def verdict(self, item: Item) -> str | None:
        """Why the item must not be rendered; None when it may."""
        ...


class ImageCheck(Protocol):
    def verdict(self, item: Item, pixels: Pixels) -> str | None:
        """Why the picture, uint8 [H, W, 3], must not be given out; None when it may.
        Thread-safe."""
        ...


@dataclass(frozen=True, slots=True)
class Checks:
    """All checks of a worker, in the order in which they are asked."""

    prompts: tuple[PromptCheck, ...] = ()
    images: tuple[ImageCheck, ...] = ()

    def of_prompt(self, item: Item) -> Fault | None:
        """The first verdict against the item."""
        found = (check.verdict(item) for check in self.prompts)
        return next((Fault(REJECTED, verdict) for verdict in found if verdict), None)

    def of_pictures(self, outcomes: Sequence[tuple[Work, Outcome]]) -> list[tuple[Work, Outcome]]:
        """The outcomes, with pictures that are refused as faults."""
        return [(work, self._seen(outcome)) for work, outcome in outcomes]

    def _seen(self, outcome: Outcome) -> Outcome:
        if not isinstance(outcome, Picture):
            return outcome
        found = (check.verdict(outcome.item, outcome.pixels) for check in self.images)
        return next((Fault(REJECTED, verdict) for verdict in found if verdict), outcome)


def from_settings(settings: Settings) -> Checks:
    """Raises `errors.Error` for a file or a checkpoint that cannot be read."""
    prompts: list[PromptCheck] = []
    images: list[ImageCheck] = []
    if settings.prompt_blocklist:
        from worker.blocklist import Blocklist

        prompts.append(Blocklist.read(settings.prompt_blocklist))
    if settings.image_check:
        from worker.classifier import Classifier

        images.append(
            Classifier(
                settings.image_check,
                labels=settings.image_check_labels,
                threshold=settings.image_check_threshold,
                device=settings.device,
            )
        )
    return Checks(tuple(prompts), tuple(images))
