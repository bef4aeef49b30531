"""The last look at what one image of a row asks for: its task has the pictures that it needs,
and what it leaves open is what is usual for it."""

from __future__ import annotations

from typing import Any, TypeAlias

from api.submissions.sources import Source
from promptmill import errors, jobs

Variant: TypeAlias = tuple[Any, ...]  # the values of `head.PRODUCT_ORDER`


def settled(variant: Variant) -> Variant:
    """With the strength that is usual for its task, where none is given or the task has nothing to
    leave by it, and with pictures by their hash. Raises
    `errors.BadRow` when the pictures are not those that its task needs, or rerolls have no
    score to reach."""
    task, size, source, mask, *middle, strength, lora, least, rerolls, expand, seed = variant
    if strength is None or task not in jobs.SOURCE_TASKS:
        strength = jobs.usual_strength(task)
    if rerolls and least is None:
        raise errors.BadRow("max_rerolls needs a min_score", param="min_score")
    if task in jobs.SOURCE_TASKS or source is not None or mask is not None:
        source, mask = _fitting(task, source, mask)
    return (task, size, source, mask, *middle, strength, lora, least, rerolls, expand, seed)


def _fitting(
    task: str, source: Source | None, mask: Source | None
) -> tuple[str | None, str | None]:
    if task not in jobs.SOURCE_TASKS:
        param = "mask" if source is None else "source"
        raise errors.BadRow(f"the task {task} starts from no {param}", param=param)
    if source is None:
        raise errors.BadRow(f"the task {task} needs a source", param="source")
    if task not in jobs.MASK_TASKS:
        if mask is not None:
            raise errors.BadRow(f"the task {task} takes no mask", param="mask")
        return source.sha256, None
    if mask is None and not source.transparent:
        raise errors.BadRow(
            f"the task {task} needs a mask, or a source that is transparent in places",
            param="mask",
        )
    return source.sha256, (mask or source).sha256
