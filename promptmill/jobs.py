"""The domain in pure functions: items, states and their legal transitions, seeds and
public ids. Knows no database, no queue, no clock."""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from promptmill import errors

SEGMENT = 1024  # items in one compressed segment of a lane
COUNTER_SHARDS = 16
MAX_LANES = 64
SOLO_ATTEMPT = 3  # from this attempt on an image is leased alone, in a worker that holds no other
SEED_BITS = 53  # every seed is exact in JSON readers that hold numbers as doubles

_INDEX = re.compile(r"[0-9]{1,9}", re.ASCII)


class JobState(enum.StrEnum):
    RECEIVING = "receiving"
    QUEUED = "queued"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"


class ImageState(enum.StrEnum):
    QUEUED = "queued"
    RENDERING = "rendering"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Priority(enum.StrEnum):
    INTERACTIVE = "interactive"
    NORMAL = "normal"
    BULK = "bulk"


LEGAL: Mapping[JobState, frozenset[JobState]] = {
    JobState.RECEIVING: frozenset({JobState.QUEUED, JobState.FAILED}),
    JobState.QUEUED: frozenset(
        {JobState.PAUSED, JobState.CANCELLING, JobState.COMPLETED, JobState.EXPIRED}
    ),
    JobState.PAUSED: frozenset(
        {JobState.QUEUED, JobState.CANCELLING, JobState.COMPLETED, JobState.EXPIRED}
    ),
    JobState.CANCELLING: frozenset({JobState.CANCELLED}),
    JobState.COMPLETED: frozenset({JobState.QUEUED}),
    JobState.CANCELLED: frozenset(),
    JobState.EXPIRED: frozenset(),
    JobState.FAILED: frozenset(),
}
FINAL = frozenset({JobState.COMPLETED, JobState.CANCELLED, JobState.FAILED, JobState.EXPIRED})
LIVE = frozenset({JobState.QUEUED, JobState.PAUSED, JobState.CANCELLING})


_VERBS = {JobState.QUEUED: "resumed or retried", JobState.CANCELLING: "cancelled"}


def check_transition(old: JobState, new: JobState) -> None:
    """Raises `errors.IllegalTransition` unless old → new stands in `LEGAL`."""
    if new not in LEGAL[old]:
        raise errors.IllegalTransition(f"a job that is {old} cannot be {_VERBS.get(new, new)}")


VARIATION = "variation"  # of an earlier image: its prompt too, where the row has none
SOURCE_TASKS = frozenset({"img2img", "inpaint", VARIATION, "style", "repair"})
MASK_TASKS = frozenset({"inpaint", "repair"})
STRENGTHS: Mapping[str, float] = {"img2img": 0.8, "style": 0.8, VARIATION: 0.8}


def usual_strength(task: str) -> float:
    """How far an image may leave its source when the row does not say: 1 not at all like it."""
    return STRENGTHS.get(task, 1.0)


@dataclass(frozen=True, slots=True)
class Item:
    """One image to make: a row of a submission after defaults, one of its `n` samples.
    source, mask: hex SHA-256 of the files that were copied when it was submitted. min_score:
    below it the image is made again with other seeds, `max_rerolls` times at most. expand:
    a language model writes the prompt out before it is rendered."""

    index: int
    row: int
    sample: int
    prompt: str
    seed: int
    width: int
    height: int
    negative_prompt: str = ""
    steps: int = 1
    guidance: float = 0.0
    task: str = "text2image"
    source: str | None = None
    mask: str | None = None
    strength: float = 1.0
    lora: str = ""
    min_score: float | None = None
    max_rerolls: int = 0
    expand: bool = False
    custom_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> str:
        return f"{self.width}x{self.height}"

    def below(self, score: float | None) -> bool | None:
        """Whether a score misses what the row asks for. None when it asks for none, or there is no
        score."""
        return None if self.min_score is None or score is None else score < self.min_score


ITEM_FIELDS = tuple(f.name for f in fields(Item))


def derive_seed(job_seed: int, index: int) -> int:
    """The seed of image `index` when its row gives none: the first 53 bits of
    SHA-256("promptmill-seed-v1:<job_seed>:<index>")."""
    digest = hashlib.sha256(f"promptmill-seed-v1:{job_seed}:{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - SEED_BITS)


def reroll_seed(seed: int, attempt: int) -> int:
    """The seed of an image's attempt 1, 2, …: the first 53 bits of
    SHA-256("promptmill-reroll-v1:<seed>:<attempt>"). Attempt 0 has the image's own."""
    if attempt == 0:
        return seed
    digest = hashlib.sha256(f"promptmill-reroll-v1:{seed}:{attempt}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - SEED_BITS)


def image_id(job_public: str, index: int) -> str:
    """`img_<job's random part>_<index>`: an image id encodes its job and index."""
    return f"img_{job_public.removeprefix('job_')}_{index}"


def parse_image_id(public: str) -> tuple[str, int]:
    """The inverse of `image_id`; raises `errors.NotFound` for anything else."""
    kind, _, rest = public.partition("_")
    job, _, index = rest.rpartition("_")
    if kind != "img" or not job or not _INDEX.fullmatch(index):
        raise errors.NotFound(f"there is no image {public[:100]!r}")
    return f"job_{job}", int(index)
