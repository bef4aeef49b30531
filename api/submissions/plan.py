"""The dry run: what a submission would make and cost. Reads everything, writes nothing."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import orjson

from api.submissions.rows import Draft, Rows
from api.submissions.sources import Sources, Taken, no_prompt
from api.submissions.submission import Submission
from api.submissions.warnings import Warnings
from promptmill import errors, jobs
from promptmill.models import Caps

FIRST = 10  # items shown
EXACT = 1_000_000  # items up to which duplicates are counted exactly
BYTES_PER_PIXEL = {"png": 1.5, "webp": 1.0, "jpeg": 0.3}  # a rough guess
OTHERS = "others"
OVERHEAD = 1_000  # bytes of headers and provenance in each image


@dataclass(frozen=True, slots=True)
class Plan:
    """images: after `n`, products and templates. duplicates: images equal to an earlier
    one in prompt, parameters and seed (an estimate past EXACT). complete: the body was
    read to its end. eta_seconds: None without a worker. problems: rows that a real
    submission would be refused for."""

    model: str
    seed: int
    rows: int
    images: int
    duplicates: int
    duplicates_exact: bool
    buckets: tuple[dict[str, Any], ...]
    bytes: int
    generator_seconds: float
    eta_seconds: float | None
    first: tuple[dict[str, Any], ...]
    problems: Warnings
    warnings: Warnings
    complete: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "object": "plan",
            "valid": not self.problems.total and self.images > 0,
            "model": self.model,
            "seed": self.seed,
            "rows": self.rows,
            "images": self.images,
            "duplicates": self.duplicates,
            "duplicates_exact": self.duplicates_exact,
            "buckets": list(self.buckets),
            "bytes": self.bytes,
            "generator_seconds": self.generator_seconds,
            "eta_seconds": self.eta_seconds,
            "first": list(self.first),
            "problems": self.problems.to_json(),
            "warnings": self.warnings.to_json(),
            "complete": self.complete,
        }


def plan(
    submission: Submission,
    *,
    costs: Mapping[str, float],
    workers: int,
    max_queued: int | None,
    read: Callable[[str], bytes],
    prompt_of: Callable[[str], str | None] = no_prompt,
) -> Plan:
    """costs: measured generator-seconds per image by bucket. workers: live ones (0: no
    ETA). max_queued: the tenant's limit. read, prompt_of: the bytes and the prompt behind a
    reference to a source. A bad row is listed as a problem and the next one read, where its
    syntax allows; what has no line or is no fault of the body is raised."""
    tally = Tally(submission, Taken(read, None, prompt_of))
    complete = tally.read()
    _check_lanes(tally.buckets, submission.model.caps, tally.problems)
    _check_images(tally.rows.images, max_queued, tally.problems)
    usual = submission.model.caps.cost
    buckets: tuple[dict[str, Any], ...] = tuple(
        {"bucket": bucket, "images": count, "seconds": costs.get(bucket, usual) * count}
        for bucket, count in tally.buckets.items()
    )
    seconds = sum(bucket["seconds"] for bucket in buckets)
    return Plan(
        model=submission.model.name,
        seed=submission.head.job.seed,
        rows=tally.rows.rows,
        images=tally.rows.images,
        duplicates=tally.duplicates.count(),
        duplicates_exact=tally.duplicates.exact,
        buckets=buckets,
        bytes=round(tally.size),
        generator_seconds=seconds,
        eta_seconds=seconds / workers if workers else None,
        first=tuple(tally.first),
        problems=tally.problems,
        warnings=submission.head.warnings,
        complete=complete,
    )


class Tally:
    """What one pass over the rows adds up to. Buckets past the limit of lanes are counted
    as one, so that memory stays bounded."""

    def __init__(self, submission: Submission, sources: Sources) -> None:
        self.submission = submission
        self.rows = Rows(submission.head, submission.limits, sources, textual=submission.textual)
        self.problems = Warnings()
        self.duplicates = Duplicates()
        self.buckets: dict[str, int] = {}
        self.first: list[dict[str, Any]] = []
        self.size = 0.0
        self._per_pixel = BYTES_PER_PIXEL[submission.head.job.output.format]

    def read(self) -> bool:
        """Whether the body was read to its end."""
        try:
            for row in self.submission.rows:
                try:
                    drafts = self.rows.of(row)
                except (errors.BadRow, errors.UnsupportedParameter) as error:
                    _note(self.problems, error)
                    continue
                for draft in drafts:
                    self._add(draft)
        except errors.Error as error:
            if error.line is None or not error.refuses:
                raise
            _note(self.problems, error)
            return False
        return True

    def _add(self, draft: Draft) -> None:
        bucket = self.submission.model.caps.bucket(cast(jobs.Item, draft))
        if bucket not in self.buckets and len(self.buckets) > jobs.MAX_LANES:
            bucket = OTHERS
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.duplicates.add(draft)
        self.size += OVERHEAD + self._per_pixel * draft.width * draft.height
        if len(self.first) < FIRST:
            self.first.append(_shown(draft))


def _note(problems: Warnings, error: errors.Error) -> None:
    problems.add(error.param or "line", error.message, line=error.line)


def _check_lanes(buckets: Mapping[str, int], caps: Caps, problems: Warnings) -> None:
    if len(buckets) > jobs.MAX_LANES:
        problems.add(
            caps.bucket_fields[0],
            f"the job needs more than {jobs.MAX_LANES} buckets: split it into several jobs",
        )


def _check_images(images: int, max_queued: int | None, problems: Warnings) -> None:
    if max_queued is not None and images > max_queued:
        problems.add("n", f"{images} images are more than this tenant's limit of {max_queued}")


def _shown(draft: Draft) -> dict[str, Any]:
    shown = draft._asdict()
    width, height = shown.pop("width"), shown.pop("height")
    return {**shown, "size": f"{width}x{height}"}


class Duplicates:
    """Counts repeated items in bounded memory: 64-bit hashes of all items up to `capacity`
    of them, then of a fraction of all possible hashes, halved whenever that is too many."""

    def __init__(self, capacity: int = EXACT) -> None:
        self.capacity = capacity
        self.level = 0  # hashes whose `level` low bits are zero are kept
        self.kept = array("Q")
        self.repeats: dict[int, int] = {}  # how often a kept hash came again

    @property
    def exact(self) -> bool:
        return self.level == 0

    def add(self, draft: Draft) -> None:
        text = orjson.dumps(draft[3:-2])  # neither the place in the job nor id and metadata
        key = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
        if key & ((1 << self.level) - 1):
            return
        if len(self.kept) >= self.capacity:
            self._compact()
        self.kept.append(key)

    def _compact(self) -> None:
        self._fold()
        while len(self.kept) > self.capacity // 2:
            self.level += 1
            mask = (1 << self.level) - 1
            self.kept = array("Q", (key for key in self.kept if not key & mask))
            self.repeats = {k: n for k, n in self.repeats.items() if not k & mask}

    def _fold(self) -> None:
        """Keeps each hash once, and counts the others in `repeats`."""
        unique = array("Q")
        for key in sorted(self.kept):
            if unique and unique[-1] == key:
                self.repeats[key] = self.repeats.get(key, 0) + 1
            else:
                unique.append(key)
        self.kept = unique

    def count(self) -> int:
        self._fold()
        return sum(self.repeats.values()) << self.level
