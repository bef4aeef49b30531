"""The queue as plain sets of images: what the Lua must agree with, image by image. It knows
where each image may be and which calls must be refused; it does not predict the order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from promptmill.leases import LaneCount, Lease, LeasedSpan, QueueLane, Span

Images = dict[int, int]  # position -> attempt


def expand(spans: Iterable[Span | LeasedSpan]) -> Images:
    return {s.start + i: s.attempt for s in spans for i in range(s.count)}


@dataclass
class ModelLane:
    lane: QueueLane
    queued: Images = field(default_factory=dict)  # waiting, fresh or for a retry


@dataclass
class QueueModel:
    """`terminal` stands for the database: what is committed survives everything."""

    terminal: dict[int, set[int]] = field(default_factory=dict)
    incidents: dict[tuple[int, int], int] = field(default_factory=dict)  # image -> attempt
    lanes: dict[int, ModelLane] = field(default_factory=dict)
    tombs: dict[int, int] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)

    def leased(self, lane: int, generation: int) -> Images:
        mine = (s for lease in self.leases.values() for s in lease.spans)
        return expand(s for s in mine if (s.lane, s.generation) == (lane, generation))

    def missing(self, lane: int, total: int) -> list[Span]:
        """The gaps in the database, one span per image that has no result."""
        done = self.terminal.setdefault(lane, set())
        tried = (self.incidents.get((lane, i), 0) for i in range(total))
        return [Span(i, 1, attempt) for i, attempt in enumerate(tried) if i not in done]

    def replace(self, lane: QueueLane, spans: Sequence[Span]) -> bool:
        old = self.lanes.get(lane.id)
        if lane.version < self.tombs.get(lane.id, 0):
            return False
        if old and (lane.version < old.lane.version or lane.generation < old.lane.generation):
            return False
        same = old is not None and old.lane.generation == lane.generation
        retries = {i: a for i, a in old.queued.items() if a} if old and same else {}
        leased = self.leased(lane.id, lane.generation)
        fresh = {i: a for i, a in expand(spans).items() if i not in leased and i not in retries}
        self.lanes[lane.id] = ModelLane(lane, {**retries, **fresh})
        self.tombs.pop(lane.id, None)
        return True

    def drop(self, lane: int, version: int) -> None:
        known = self.lanes.get(lane)
        if known and known.lane.version > version:
            return
        self.lanes.pop(lane, None)
        self.tombs[lane] = max(version, self.tombs.get(lane, 0))

    def lease(self, lease: Lease) -> None:
        """Takes over what the queue gave; every image must have waited, in one bucket."""
        for span in lease.spans:
            held = self.lanes[span.lane]
            assert held.lane.bucket == lease.bucket
            assert (held.lane.job_id, held.lane.generation) == (span.job_id, span.generation)
            for position, attempt in expand([span]).items():
                assert held.queued.pop(position) == attempt
        self.leases[lease.id] = lease

    def give_back(self, lease_id: str, spans: Iterable[LeasedSpan], *, charge: bool) -> bool:
        if self.leases.pop(lease_id, None) is None:
            return False
        for span in spans:
            held = self.lanes.get(span.lane)
            if held and held.lane.generation == span.generation:
                back = {i: a + charge for i, a in expand([span]).items()}
                assert not back.keys() & held.queued.keys()
                held.queued.update(back)
        return True

    def reap(self, lease_id: str) -> bool:
        """Control records the attempt in the database, then takes the lease back."""
        lease = self.leases.get(lease_id)
        if lease is None:
            return False
        for span in lease.spans:
            for position, attempt in expand([span]).items():
                known = self.incidents.get((span.lane, position), 0)
                self.incidents[span.lane, position] = max(known, attempt + 1)
        return self.give_back(lease_id, lease.spans, charge=True)

    def commit(self, spans: Iterable[LeasedSpan]) -> None:
        """The fence: only what belongs to the generation of now becomes terminal."""
        for span in spans:
            held = self.lanes.get(span.lane)
            if held and held.lane.generation == span.generation:
                self.terminal[span.lane] |= expand([span]).keys()

    def flush(self) -> None:
        self.lanes.clear()
        self.tombs.clear()
        self.leases.clear()

    def count(self, lane: int) -> LaneCount:
        held = self.lanes.get(lane)
        if held:
            leased = len(self.leased(lane, held.lane.generation))
        else:
            spans = (s for lease in self.leases.values() for s in lease.spans if s.lane == lane)
            leased = sum(s.count for s in spans)
        retry = sum(a > 0 for a in held.queued.values()) if held else 0
        fresh = len(held.queued) - retry if held else 0
        return LaneCount(fresh, leased, retry, held is not None)
