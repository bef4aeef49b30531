"""Has the farm render images of a job again and compares: stored bytes, record and second
rendering must agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from promptmill.client.job import PAGE, Job

DAMAGE = frozenset({"damaged", "missing"})  # what a repair can put right


@dataclass(frozen=True, slots=True)
class Verification:
    """statuses: images by ok, damaged, missing, mismatch, unverifiable, pending. faults: the
    verdicts that are not ok, each with `index` and `row`. repaired, unrepairable: indexes,
    after a repair."""

    job: str
    statuses: Mapping[str, int]
    faults: tuple[Mapping[str, Any], ...]
    repaired: tuple[int, ...] = ()
    unrepairable: tuple[int, ...] = ()

    @property
    def ok(self) -> bool:
        """No fault is left."""
        return all(int(fault["index"]) in self.repaired for fault in self.faults)


def verify(
    job: Job, *, sample: int | None, repair: bool, progress: Callable[[Job], None] | None = None
) -> Verification:
    """Renders `sample` images again (None: all that are done) as a job of its own, which is
    deleted afterwards unless a second rendering differed. repair: restores damaged and
    missing images from it."""
    wanted = {"all": True} if sample is None else {"sample": sample}
    second = job.another(job.post("verify", json=wanted | {"repair": repair}))
    second.wait(progress)
    statuses: Counter[str] = Counter()
    faults: list[Mapping[str, Any]] = []
    for verdict in _verdicts(job, second):
        statuses[str(verdict["status"])] += 1
        if verdict["status"] != "ok":
            faults.append(verdict)
    done: Mapping[str, Any] = {}
    if repair and any(fault["status"] in DAMAGE for fault in faults):
        done = job.post(f"verify/{second.id}/repair")
    if not statuses["mismatch"]:
        second.delete()
    return Verification(
        job.id,
        dict(statuses),
        tuple(faults),
        tuple(done.get("repaired", ())),
        tuple(done.get("unrepairable", ())),
    )


def _verdicts(job: Job, second: Job) -> Iterator[Mapping[str, Any]]:
    after: int | None = None
    while True:
        params: dict[str, int] = {"limit": PAGE} | ({} if after is None else {"after": after})
        page = job.get(f"verify/{second.id}", params=params)
        yield from page["data"]
        after = page.get("next")
        if not page["has_more"] or after is None:
            return
