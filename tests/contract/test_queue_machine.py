"""The real Lua against sets of images: whatever is called in whatever order, every image of
an open job is waiting, leased or committed, and never in two of these places."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from promptmill.jobs import Priority
from promptmill.leases import Lease, QueueLane
from promptmill.queue import Cold
from promptmill.redis_queue import RedisQueue
from tests.contract.queue_model import QueueModel

pytestmark = [pytest.mark.servers, pytest.mark.timeout(170)]

BUCKETS = ("64x64", "128x128", "large, with a space")
WORKERS = ("a", "b", "c")
MOST_LANES = 5


class QueueMachine(RuleBasedStateMachine):
    """Jobs of one lane each; job 10*n has lane n."""

    leases = Bundle("leases")
    url: str

    def __init__(self) -> None:
        super().__init__()
        self.queue = RedisQueue(self.url, f"m-{uuid.uuid4().hex[:8]}")
        self.server = redis.Redis.from_url(self.url, decode_responses=True)
        self.model = QueueModel()
        self.jobs: dict[int, QueueLane] = {}  # as the database has them
        self.totals: dict[int, int] = {}
        self.open: set[int] = set()  # queued jobs; the others are paused or over

    @initialize(totals=st.lists(st.integers(20, 300), min_size=2, max_size=3))
    def begin(self, totals: list[int]) -> None:
        self.queue.set_epoch(self.queue.begin_rebuild())
        for i, total in enumerate(totals, 1):
            self.submit(
                i, total, 0, tenant=i, weight=1.0, bucket=BUCKETS[i // 3], priority=Priority.NORMAL
            )

    def keys(self) -> list[str]:
        return list(self.server.scan_iter(f"{{{self.queue.model}}}:*", count=1000))

    @precondition(lambda self: len(self.jobs) < MOST_LANES)
    @rule(
        id=st.integers(1, MOST_LANES), tenant=st.integers(1, 3), weight=st.sampled_from([0.5, 1.0, 3.0]),
        bucket=st.sampled_from(BUCKETS), priority=st.sampled_from(list(Priority)),
        total=st.integers(1, 300), tried=st.sampled_from([0, 0, 1, 2, 3]),
    )  # fmt: skip
    def submit(self, id: int, total: int, tried: int, **changes: Any) -> None:
        """tried: how often a part of it has crashed before Redis was lost."""
        if id in self.jobs:
            return
        self.jobs[id] = QueueLane(
            id=id, job_id=id * 10, count=total, generation=0, version=1, tenant_id=changes["tenant"],
            weight=changes["weight"], bucket=changes["bucket"], cost=0.01 * id,
            priority=changes["priority"],
        )  # fmt: skip
        self.totals[id] = total
        self.model.incidents |= {(id, i): tried for i in range(total // 2) if i % 20 < 5}
        self.open.add(id)
        self.rebuild(id)

    def rebuild(self, id: int) -> None:
        """What the API after a submission and control after a loss do: database, then queue."""
        spans = self.model.missing(id, self.totals[id])
        accepted = self.model.replace(self.jobs[id], spans)
        assert self.queue.replace(self.jobs[id], spans) is accepted is True

    @precondition(lambda self: self.open)
    @rule(data=st.data(), late=st.booleans())
    def replace_again(self, data: st.DataObject, late: bool) -> None:
        """A repair; late: by a process that slept, with a state that is over."""
        id = data.draw(st.sampled_from(sorted(self.open)))
        if not late:
            self.rebuild(id)
            return
        stale = replace(self.jobs[id], version=self.jobs[id].version - 1)
        assert self.queue.replace(stale, self.model.missing(id, self.totals[id])) is False
        self.drop(id, stale.version)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def pause_or_cancel(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.open)))
        self.open.remove(id)
        self.jobs[id] = replace(self.jobs[id], version=self.jobs[id].version + 1)
        self.drop(id, self.jobs[id].version)
        stale = replace(self.jobs[id], version=self.jobs[id].version - 1)
        assert self.queue.replace(stale, self.model.missing(id, self.totals[id])) is False

    def drop(self, id: int, version: int) -> None:
        self.queue.drop([id], version=version)
        self.model.drop(id, version)

    @precondition(lambda self: self.jobs.keys() - self.open)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.jobs.keys() - self.open)))
        self.requeue(id, generation=self.jobs[id].generation)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        """Failed rows are deleted and run again; older leases are not worth a thing."""
        id = data.draw(st.sampled_from(sorted(self.jobs)))
        self.model.terminal[id] -= data.draw(st.sets(st.integers(0, self.totals[id] - 1)))
        self.requeue(id, generation=self.jobs[id].generation + 1)

    def requeue(self, id: int, *, generation: int) -> None:
        version = self.jobs[id].version + 1
        self.jobs[id] = replace(self.jobs[id], version=version, generation=generation)
        self.open.add(id)
        self.rebuild(id)

    @rule(target=leases, workers=st.lists(st.sampled_from(WORKERS), min_size=1, max_size=4))
    def lease_plainly(self, workers: list[str]) -> Any:
        found = [self.lease(worker, 32, interactive=False, prefer=None) for worker in workers]
        return multiple(*(lease for lease in found if lease))

    @rule(
        target=leases, worker=st.sampled_from(WORKERS), want=st.sampled_from([1, 4, 64]),
        interactive=st.booleans(), prefer=st.sampled_from([None, *BUCKETS]),
    )  # fmt: skip
    def lease_somehow(self, worker: str, want: int, interactive: bool, prefer: str | None) -> Any:
        lease = self.lease(worker, want, interactive=interactive, prefer=prefer)
        return multiple(lease) if lease else multiple()

    def lease(
        self, worker: str, want: int, *, interactive: bool, prefer: str | None
    ) -> Lease | None:
        lease = self.queue.lease(worker, want, ttl=60, interactive=interactive, prefer=prefer)
        if lease is None:
            return None
        assert 1 <= lease.count <= want
        attempts = {span.attempt for span in lease.spans}
        assert len(attempts) == 1
        attempt = attempts.pop()
        assert lease.count <= max(1, want >> attempt)
        others = [held for held in self.model.leases.values() if held.worker == worker]
        assert not any(span.attempt >= 3 for held in others for span in held.spans)
        if attempt >= 3:
            assert lease.count == 1
            assert not others
        if interactive:
            lanes = [self.model.lanes[span.lane].lane for span in lease.spans]
            assert all(lane.priority is Priority.INTERACTIVE for lane in lanes)
        self.model.lease(lease)
        return lease

    @rule(lease=consumes(leases))
    def commit_and_ack(self, lease: Lease) -> None:
        """Also by a zombie whose lease was reaped: the database takes each image once."""
        self.model.commit(lease.spans)
        held = self.model.leases.pop(lease.id, None) is not None
        assert self.queue.ack(lease.id) is held

    @rule(lease=consumes(leases))
    def drain(self, lease: Lease) -> None:
        """Nothing of it was begun: all goes back, uncharged."""
        held = self.model.give_back(lease.id, lease.spans, charge=False)
        assert self.queue.nack(lease, lease.spans, charge=False) is held

    @rule(lease=consumes(leases), charge=st.booleans(), eighths=st.integers(0, 8))
    def nack(self, lease: Lease, charge: bool, eighths: int) -> None:
        """A part was done and committed, the rest goes back."""
        given, done = [], []
        for span in lease.spans:
            kept = span.count * eighths // 8
            done.append(replace(span, count=kept))
            if kept < span.count:
                given.append(replace(span, start=span.start + kept, count=span.count - kept))
        self.model.commit(done)
        held = self.model.give_back(lease.id, given, charge=charge)
        assert self.queue.nack(lease, given, charge=charge) is held

    @rule(lease=leases, foreign=st.booleans())
    def beat(self, lease: Lease, foreign: bool) -> None:
        worker = "somebody else" if foreign else lease.worker
        gone = foreign or lease.id not in self.model.leases
        found = self.queue.beat(worker, {lease.id: True, "unknown": False}, ttl=60)
        assert found == {"unknown", *([lease.id] if gone else [])}

    @rule(lease=leases)
    def expire_and_reap(self, lease: Lease) -> None:
        """All leases are named, one has expired: it stays a zombie's in its worker."""
        held = self.model.leases.get(lease.id)
        self.queue.beat(lease.worker, {lease.id: False}, ttl=-0.001)
        assert [e.lease for e in self.queue.expired()] == ([held] if held else [])
        taken = self.queue.reap(list(self.model.leases))
        assert taken == self.model.reap(lease.id)

    @precondition(lambda self: self.model.leases)
    @rule(worker=st.sampled_from(WORKERS))
    def crash(self, worker: str) -> None:
        """A process dies with all that it holds."""
        mine = [lease for lease in self.model.leases.values() if lease.worker == worker]
        assert self.queue.beat(worker, {lease.id: True for lease in mine}, ttl=-0.001) == set()
        found = self.queue.expired()
        assert {e.lease.id for e in found} == {lease.id for lease in mine}
        assert all(e.rendering for e in found)
        assert self.queue.reap([lease.id for lease in mine]) == len(mine)
        for lease in mine:
            self.model.reap(lease.id)

    @rule(odds=st.integers(0, 7))
    def flush_and_rebuild(self, odds: int) -> None:
        if odds < 7:
            return
        if keys := self.keys():
            self.server.delete(*keys)
        self.model.flush()
        with pytest.raises(Cold):
            self.queue.lease("a", 1, ttl=60)
        for id in sorted(self.open):
            self.rebuild(id)
        self.queue.set_epoch(self.queue.begin_rebuild())

    @invariant()
    def agrees_with_the_model(self) -> None:
        counts = self.queue.snapshot(list(self.jobs))
        assert counts == {id: self.model.count(id) for id in self.jobs}
        assert sorted(self.queue.lane_ids()) == sorted(self.model.lanes)

    @invariant()
    def every_image_of_an_open_job_has_a_place(self) -> None:
        for id in self.open:
            held = self.model.lanes[id]
            leased = self.model.leased(id, held.lane.generation)
            places = held.queued.keys() | leased.keys() | self.model.terminal[id]
            assert places == set(range(self.totals[id]))
            assert not held.queued.keys() & leased.keys()

    @invariant()
    def depth_is_the_sum(self) -> None:
        depth = self.queue.depth()
        waiting = {id: len(held.queued) for id, held in self.model.lanes.items()}
        assert depth["queued"] == sum(waiting.values())
        seconds = sum(n * self.jobs[id].cost for id, n in waiting.items())
        assert depth["queued_seconds"] == pytest.approx(seconds, abs=1e-4)
        assert depth["leased"] == sum(lease.count for lease in self.model.leases.values())

    def teardown(self) -> None:
        """All that waits can be leased, by one fresh worker, and then nothing is left."""
        try:
            for lease in list(self.model.leases.values()):
                self.commit_and_ack(lease)
            while rest := self.queue.lease("last", 64, ttl=60):
                self.model.lease(rest)
                self.commit_and_ack(rest)
            for id in self.open:
                assert self.model.terminal[id] == set(range(self.totals[id]))
            self.queue.drop(list(self.jobs), version=10_000)
            kept = ("epoch", "tomb", "solo:for")
            left = [key.split(":", 1)[1] for key in self.keys()]
            assert [key for key in left if not key.startswith(kept)] == []
        finally:
            if keys := self.keys():
                self.server.delete(*keys)
            self.queue.close()
            self.server.close()


@pytest.mark.parametrize("server", ["valkey_url", "redis7_url"])
def test_no_image_is_lost_or_doubled(server: str, request: pytest.FixtureRequest) -> None:
    machine = type("Machine", (QueueMachine,), {"url": request.getfixturevalue(server)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
