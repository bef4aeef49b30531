"""The frozen records that cross threads and processes: what the store returns, what a
worker commits. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from promptmill.jobs import ImageState, Item, JobState, Priority


@dataclass(frozen=True, slots=True)
class Tenant:
    id: int
    name: str
    weight: float = 1.0
    max_queued: int | None = None  # images; None: the setting decides


@dataclass(frozen=True, slots=True)
class Output:
    """How a job's images are encoded and stored."""

    format: str = "png"  # png | webp | jpeg
    packing: str = "image"  # image: one object each | tar: one part per lease and job
    prefix: str = ""  # below the storage prefix, from the allowed list

    def extension(self) -> str:
        return {"png": "png", "webp": "webp", "jpeg": "jpg"}[self.format]


@dataclass(frozen=True, slots=True)
class NewJob:
    """A submission's head, before its rows are known."""

    tenant_id: int
    model: str
    name: str
    priority: Priority
    seed: int
    defaults: Mapping[str, Any]
    output: Output
    metadata: Mapping[str, Any] = field(default_factory=dict)
    webhook: str | None = None
    fingerprint: str | None = None  # pinned
    expires_at: float | None = None
    recipe: Mapping[str, Any] | None = None  # the template and its variables, as given
    verifies: int | None = None  # the job whose images it renders again


@dataclass(frozen=True, slots=True)
class Upload:
    """A submission being received. Segment writes check `epoch`."""

    job_id: int
    public_id: str
    epoch: int
    output: Output = Output()


@dataclass(frozen=True, slots=True)
class Replay:
    """The idempotency key is known: the job it made, and the hash to compare with."""

    public_id: str
    request_hash: str


@dataclass(frozen=True, slots=True)
class LaneSpec:
    """A lane of a submission, complete: `count` items numbered 0..count-1."""

    number: int
    bucket: str
    cost: float  # generator-seconds per image
    count: int


@dataclass(frozen=True, slots=True)
class Segment:
    """`count` items of lane `lane`, from position `first`, encoded by `segments.encode`."""

    lane: int  # lane number inside the job
    number: int
    first: int
    count: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class MapBlock:
    """`row_map`: for images block*1024 .. +1023 of a job of several lanes, the packed
    (lane number, position) of each, encoded by `segments.encode_map`."""

    block: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Lane:
    id: int
    job_id: int
    number: int
    bucket: str
    cost: float
    count: int


@dataclass(frozen=True, slots=True)
class Counts:
    total: int
    done: int
    failed: int
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    id: int
    public_id: str
    tenant_id: int
    name: str
    model: str
    state: JobState
    priority: Priority
    seed: int
    generation: int
    version: int  # +1 with every change of state; the queue refuses an older one
    defaults: Mapping[str, Any]
    output: Output
    metadata: Mapping[str, Any]
    webhook: str | None
    fingerprint: str | None
    recipe: Mapping[str, Any] | None
    error: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    expires_at: float | None
    counts: Counts


@dataclass(frozen=True, slots=True)
class Work:
    """One image to render, with all that the slot needs to store and commit it."""

    item: Item
    job_id: int
    job: str  # public id
    lane: int
    position: int
    generation: int
    attempt: int
    model: str
    output: Output
    pinned: str | None = None  # the fingerprint that the job asks for


@dataclass(frozen=True, slots=True)
class Result:
    """A terminal image, as committed: one row."""

    job_id: int
    lane: int
    position: int
    index: int
    generation: int
    state: ImageState  # DONE or FAILED
    attempt: int
    seed: int
    worker: str
    fingerprint: str
    render_ms: float = 0.0
    key: str | None = None  # object key; of the tar part when `length` is set
    offset: int | None = None
    length: int | None = None
    sha256: bytes | None = None
    bytes: int = 0
    score: float | None = None
    rerolls: str | None = None  # JSON: [seed, score] of each attempt
    expanded_prompt: str | None = None
    error_code: str | None = None
    error_text: str | None = None

    @staticmethod
    def of(work: Work, state: ImageState, *, worker: str, fingerprint: str, **facts: Any) -> Result:
        """What became of `work`; `facts` are the fields beyond those it has."""
        return Result(
            job_id=work.job_id,
            lane=work.lane,
            position=work.position,
            index=work.item.index,
            generation=work.generation,
            state=state,
            attempt=work.attempt,
            worker=worker,
            fingerprint=fingerprint,
            **{"seed": work.item.seed, **facts},
        )


@dataclass(frozen=True, slots=True)
class Image:
    """One image of a job as the API shows it: its item and, when terminal, its result. seed:
    the one that was used. rerolls: (seed, score) of each attempt, where some were asked for."""

    job_id: int
    item: Item
    state: ImageState
    generation: int | None = None  # in which it ended
    attempt: int = 0
    key: str | None = None
    offset: int | None = None
    length: int | None = None
    sha256: bytes | None = None
    bytes: int = 0
    seed: int | None = None
    score: float | None = None
    rerolls: tuple[tuple[int, float | None], ...] = ()
    expanded_prompt: str | None = None
    fingerprint: str | None = None
    error_code: str | None = None
    error_text: str | None = None
    render_ms: float | None = None
    worker: str | None = None
    finished_at: float | None = None

    @property
    def below_min_score(self) -> bool | None:
        """None when its row asks for no score, or it has none."""
        return self.item.below(self.score)
