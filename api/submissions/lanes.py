"""Items into lanes: one lane per bucket, cut into compressed segments; and the map from
index to lane of a job that has several. Knows the model's buckets, not the store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, cast

from api.submissions.rows import Draft
from promptmill import errors, jobs, segments
from promptmill.models import Caps
from promptmill.records import LaneSpec, MapBlock, Segment

MAX_HELD = 256_000_000  # characters of prompts in unfinished segments


class Lane:
    """One bucket's items: `done` of them in finished segments, the rest in `held`."""

    def __init__(self, number: int, bucket: str) -> None:
        self.number = number
        self.bucket = bucket
        self.done = 0
        self.held: list[Draft] = []

    @property
    def count(self) -> int:
        return self.done + len(self.held)

    def cut(self) -> Segment:
        """The held items as the lane's next segment."""
        segment = Segment(
            lane=self.number,
            number=self.done // jobs.SEGMENT,
            first=self.done,
            count=len(self.held),
            payload=segments.encode_rows(self.held),
        )
        self.done += len(self.held)
        self.held = []
        return segment


class Lanes:
    """`add` every draft in index order and write what it yields; `finish` yields the rest.
    Raises `errors.BadRequest` when the items need more than `jobs.MAX_LANES` buckets."""

    def __init__(self, caps: Caps) -> None:
        self.caps = caps
        self.lanes: dict[Any, Lane] = {}
        self._key = attrgetter(*caps.bucket_fields) if caps.bucket_fields else lambda _: None
        self._held = 0
        self._places: list[tuple[int, int]] = []  # of the block being filled
        self._blocks = 0  # finished before it
        self._total = 0

    def add(self, draft: Draft) -> Segment | None:
        """The segment that this item completes."""
        key = self._key(draft)
        lane = self.lanes.get(key) or self._open(key, draft)
        held = lane.held
        if len(self.lanes) > 1:
            self._places.append((lane.number, lane.done + len(held)))
        self._total += 1
        held.append(draft)
        self._held += len(draft.prompt)
        if len(held) == jobs.SEGMENT:
            self._held -= sum(len(one.prompt) for one in held)
            return lane.cut()
        if self._held > MAX_HELD:
            raise errors.TooLarge(
                "too many long prompts in too many buckets at once: sort the rows by size",
                param="size",
            )
        return None

    def _open(self, key: Any, draft: Draft) -> Lane:
        if len(self.lanes) == jobs.MAX_LANES:
            fields = ", ".join(self.caps.bucket_fields)
            raise errors.BadRequest(
                f"the job needs more than {jobs.MAX_LANES} combinations of {fields}: "
                "split it into several jobs",
                param=self.caps.bucket_fields[0],
            )
        lane = Lane(len(self.lanes), self.caps.bucket(cast(jobs.Item, draft)))
        self.lanes[key] = lane
        return lane

    def blocks(self) -> Iterator[MapBlock]:
        """The finished blocks of the map; none as long as there is one lane. The blocks
        from before the second lane are made when it has come."""
        if len(self.lanes) < 2:
            return
        known = self._total - len(self._places)
        if known > self._blocks * jobs.SEGMENT:  # all of lane 0, up to here
            while (self._blocks + 1) * jobs.SEGMENT <= known:
                start = self._blocks * jobs.SEGMENT
                yield self._block([(0, start + i) for i in range(jobs.SEGMENT)])
            rest = range(self._blocks * jobs.SEGMENT, known)
            self._places[:0] = [(0, position) for position in rest]
        while len(self._places) >= jobs.SEGMENT:
            full, self._places = self._places[: jobs.SEGMENT], self._places[jobs.SEGMENT :]
            yield self._block(full)

    def _block(self, places: Sequence[tuple[int, int]]) -> MapBlock:
        block = MapBlock(self._blocks, segments.encode_map(places))
        self._blocks += 1
        return block

    def finish(self) -> Iterator[Segment | MapBlock]:
        """What is left: a last segment of each lane, and the last block."""
        yield from self.blocks()
        if self._places:
            places, self._places = self._places, []
            yield self._block(places)
        for lane in self.lanes.values():
            if lane.held:
                yield lane.cut()

    def specs(self, costs: Mapping[str, float]) -> list[LaneSpec]:
        """costs: measured seconds per image by bucket; the model's first guess otherwise."""
        return [
            LaneSpec(
                number=lane.number,
                bucket=lane.bucket,
                cost=costs.get(lane.bucket, self.caps.cost),
                count=lane.count,
            )
            for lane in self.lanes.values()
        ]
