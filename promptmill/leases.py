"""What the queue knows: lanes, the spans of them that are leased, and what befell a lease. Data
only, frozen, known to threads and processes."""

from __future__ import annotations

from dataclasses import dataclass

from promptmill.jobs import Priority


@dataclass(frozen=True, slots=True)
class Span:
    """`count` images of a lane from position `start`, tried `attempt` times before."""

    start: int
    count: int
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class QueueLane:
    """What the queue needs to know of a lane. count: its images."""

    id: int
    job_id: int
    count: int
    generation: int
    version: int
    tenant_id: int
    weight: float
    bucket: str
    cost: float
    priority: Priority


@dataclass(frozen=True, slots=True)
class LeasedSpan:
    lane: int
    job_id: int
    generation: int
    start: int
    count: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Incident:
    """What befell a leased span, recorded before Redis is touched."""

    lease_id: str
    job_id: int
    lane: int
    start: int
    count: int
    attempt: int
    kind: str  # crash (alone and rendering) | lost | error (of ours, alone)
    worker: str


@dataclass(frozen=True, slots=True)
class Lease:
    id: str
    worker: str
    bucket: str
    spans: tuple[LeasedSpan, ...]
    interactive: bool = False  # somebody waits for it

    @property
    def count(self) -> int:
        return sum(span.count for span in self.spans)

    def incidents(self, kind: str) -> list[Incident]:
        """One for each span, with the attempt that it comes back with."""
        return [
            Incident(
                lease_id=self.id,
                job_id=span.job_id,
                lane=span.lane,
                start=span.start,
                count=span.count,
                attempt=span.attempt + 1,
                kind=kind,
                worker=self.worker,
            )
            for span in self.spans
        ]


@dataclass(frozen=True, slots=True)
class Expired:
    """A lease past its deadline. `rendering`: its rendering had begun (by heartbeat)."""

    lease: Lease
    rendering: bool


@dataclass(frozen=True, slots=True)
class LaneCount:
    """Where a lane's images are, in Redis."""

    queued: int
    leased: int
    retry: int
    registered: bool
