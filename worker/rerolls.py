"""Better of several: an item that asks for a least score is rendered again with derived
seeds until it has it, or its tries are spent; the best picture is kept. What an item gets
depends on itself alone, since its attempts do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count

from promptmill import jobs
from worker.outcomes import Attempt, Fault, Outcome, Picture, Task

Render = Callable[[Sequence[Task]], list[Outcome]]


def best(render: Render, tasks: Sequence[Task]) -> list[Outcome]:
    """render: one outcome for each task, in order. A first attempt that fails is the
    outcome; a later one only counts as a try. Of equal scores the first is kept."""
    kept = list(render(tasks))
    for number, (item, _) in enumerate(tasks):
        kept[number] = _begun(kept[number], asked=item.min_score is not None)
    for attempt in count(1):
        again = [n for n, (item, _) in enumerate(tasks) if _wants(kept[n], item, attempt)]
        if not again:
            return kept
        tries = [_reseeded(tasks[n], attempt) for n in again]
        for n, task, made in zip(again, tries, render(tries), strict=True):
            kept[n] = _better(kept[n], task, made)
    return kept


def _begun(outcome: Outcome, *, asked: bool) -> Outcome:
    if isinstance(outcome, Fault) or not asked:
        return outcome
    return replace(outcome, attempts=(Attempt(outcome.item.seed, outcome.score),))


def _wants(kept: Outcome, item: jobs.Item, attempt: int) -> bool:
    if isinstance(kept, Fault) or item.min_score is None:
        return False
    return attempt <= item.max_rerolls and _score(kept) < item.min_score


def _reseeded(task: Task, attempt: int) -> Task:
    item, given = task
    return replace(item, seed=jobs.reroll_seed(item.seed, attempt)), given


def _better(kept: Outcome, task: Task, made: Outcome) -> Outcome:
    """The better picture, with all attempts and the time of all of them."""
    if not isinstance(kept, Picture):
        return kept
    if not isinstance(made, Picture):
        return replace(kept, attempts=(*kept.attempts, Attempt(task[0].seed, None)))
    attempts = (*kept.attempts, Attempt(task[0].seed, made.score))
    spent = kept.milliseconds + made.milliseconds
    better = made if _score(made) > _score(kept) else kept
    return replace(better, attempts=attempts, milliseconds=spent)


def _score(picture: Picture) -> float:
    return -math.inf if picture.score is None else picture.score
