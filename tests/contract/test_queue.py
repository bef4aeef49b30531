"""The queue's contract on Valkey and on Redis: what each call promises, alone."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from promptmill import errors
from promptmill.jobs import Priority
from promptmill.leases import LaneCount, Lease, LeasedSpan, QueueLane, Span
from promptmill.queue import Cold
from promptmill.redis_queue import RedisQueue

pytestmark = [pytest.mark.servers, pytest.mark.timeout(60)]

W = "host-1"
SMALL = "task=text2image,width=64,height=64"
LARGE = "task=text2image,width=128,height=128"


def lane(id: int, **changes: Any) -> QueueLane:
    made = QueueLane(
        id=id, job_id=id * 10, count=100, generation=0, version=1, tenant_id=1, weight=1.0,
        bucket=SMALL, cost=0.01, priority=Priority.NORMAL,
    )  # fmt: skip
    return replace(made, **changes)


def images(spans: tuple[LeasedSpan, ...]) -> set[tuple[int, int]]:
    return {(s.lane, s.start + i) for s in spans for i in range(s.count)}


@pytest.fixture
def model() -> str:
    return f"m-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def server(queue_server_url: str, model: str) -> Iterator[redis.Redis]:
    """A plain client, to look at the keys; removes this test's keys at the end."""
    client = redis.Redis.from_url(queue_server_url, decode_responses=True)
    yield client
    for key in client.scan_iter(f"{{{model}}}:*", count=1000):
        client.delete(key)
    client.close()


@pytest.fixture
def queue(queue_server_url: str, model: str, server: redis.Redis) -> Iterator[RedisQueue]:
    made = RedisQueue(queue_server_url, model)
    made.set_epoch(made.begin_rebuild())
    yield made
    made.close()


@pytest.fixture
def keys(server: redis.Redis, model: str) -> Callable[[], set[str]]:
    """The keys of this model that hold something of jobs."""

    def look() -> set[str]:
        found = {key.split(":", 1)[1] for key in server.scan_iter(f"{{{model}}}:*", count=1000)}
        kept = ("epoch", "caps", "workers", "alive")
        return {key for key in found if key not in kept and not key.startswith("tomb:")}

    return look


def drain(queue: RedisQueue, want: int = 64, **options: Any) -> list[Lease]:
    """Leases and acknowledges until nothing is left."""
    taken = []
    while lease := queue.lease(W, want, ttl=30, **options):
        taken.append(lease)
        assert queue.ack(lease.id)
    return taken


def expire(queue: RedisQueue, worker: str, *leases: Lease) -> None:
    """The leases are past their deadline now."""
    assert queue.beat(worker, {lease.id: False for lease in leases}, ttl=-0.001) == set()


class TestLease:
    def test_cold_until_rebuilt(self, queue: RedisQueue, server: redis.Redis, model: str) -> None:
        queue.replace(lane(1), [Span(0, 5)])
        server.delete(f"{{{model}}}:epoch")
        assert queue.epoch() is None
        with pytest.raises(Cold):
            queue.lease(W, 5, ttl=30)
        token = queue.begin_rebuild()
        assert queue.epoch() is None
        assert queue.set_epoch(token)
        assert queue.set_epoch(token), "its reply may be lost"
        assert queue.epoch() == token
        lease = queue.lease(W, 5, ttl=30)
        assert lease is not None
        assert lease.spans == (LeasedSpan(1, 10, 0, 0, 5, 0),)
        assert (lease.worker, lease.bucket, lease.count) == (W, SMALL, 5)

    def test_cold_when_emptied_while_it_was_rebuilt(
        self, queue: RedisQueue, server: redis.Redis, model: str
    ) -> None:
        server.delete(f"{{{model}}}:epoch")
        token = queue.begin_rebuild()
        server.delete(f"{{{model}}}:rebuilding")
        assert not queue.set_epoch(token)
        first, second = queue.begin_rebuild(), queue.begin_rebuild()
        assert not queue.set_epoch(first)
        assert queue.epoch() is None
        assert queue.set_epoch(second)

    def test_nothing_to_do(self, queue: RedisQueue) -> None:
        assert queue.lease(W, 8, ttl=30) is None

    def test_each_image_once(self, queue: RedisQueue) -> None:
        for i in range(1, 8):
            assert queue.replace(lane(i, tenant_id=i % 3), [Span(0, 7 * i)])
        taken = [image for lease in drain(queue, 16) for image in images(lease.spans)]
        assert len(taken) == len(set(taken)) == sum(7 * i for i in range(1, 8))

    def test_one_bucket_filled_from_all_lanes(self, queue: RedisQueue) -> None:
        for i in range(1, 7):
            queue.replace(lane(i, tenant_id=i % 2, bucket=(SMALL, LARGE)[i % 3 == 0]), [Span(0, 5)])
        first, second = drain(queue, 32)
        assert {first.count, second.count} == {20, 10}
        assert {first.bucket, second.bucket} == {SMALL, LARGE}
        small = first if first.bucket == SMALL else second
        assert {s.lane for s in small.spans} == {1, 2, 4, 5}

    def test_cap(self, queue: RedisQueue) -> None:
        queue.set_cap(SMALL, 4)
        assert queue.caps() == {SMALL: 4}
        queue.replace(lane(1), [Span(0, 10)])
        assert [lease.count for lease in drain(queue, 32)] == [4, 4, 2]

    def test_keeps_the_warm_bucket_for_a_while_only(self, queue: RedisQueue) -> None:
        queue.replace(lane(1, tenant_id=1, bucket=SMALL), [Span(0, 1000)])
        queue.replace(lane(2, tenant_id=2, bucket=LARGE), [Span(0, 1000)])
        plain, sticky = Counter[str](), []
        for _ in range(10):
            lease = queue.lease(W, 8, ttl=30)
            assert lease is not None
            plain[lease.bucket] += 1
        assert plain == {SMALL: 5, LARGE: 5}
        for _ in range(10):
            lease = queue.lease(W, 8, ttl=30, prefer=LARGE)
            assert lease is not None
            sticky.append(lease.bucket)
        assert sticky.count(LARGE) in (5, 6)
        switches = sum(a != b for a, b in itertools.pairwise(sticky))
        assert switches < 9

    def test_lost_reply_gives_the_same_lease(
        self, queue: RedisQueue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("promptmill.redis_queue.secrets.token_hex", lambda n: "same")
        queue.replace(lane(1), [Span(0, 10)])
        assert queue.lease(W, 4, ttl=30) == queue.lease(W, 4, ttl=30)
        assert queue.depth()["leased"] == 4


class TestEnds:
    def test_ack_once(self, queue: RedisQueue) -> None:
        queue.replace(lane(1), [Span(0, 3)])
        lease = queue.lease(W, 3, ttl=30)
        assert lease is not None
        assert queue.ack(lease.id) is True
        assert queue.ack(lease.id) is False
        assert queue.nack(lease, lease.spans, charge=False) is False
        assert queue.snapshot([1])[1] == LaneCount(0, 0, 0, True)

    def test_nack_uncharged_restores_one_span(
        self, queue: RedisQueue, server: redis.Redis, model: str
    ) -> None:
        queue.replace(lane(1), [Span(0, 1000)])
        lease = queue.lease(W, 32, ttl=30)
        assert lease is not None
        assert queue.nack(lease, lease.spans, charge=False)
        assert server.lrange(f"{{{model}}}:q:1", 0, -1) == ["0 1000"]
        again = queue.lease(W, 32, ttl=30)
        assert again is not None
        assert again.spans == lease.spans

    def test_nack_joins_only_what_touches(
        self, queue: RedisQueue, server: redis.Redis, model: str
    ) -> None:
        queue.replace(lane(1), [Span(0, 100)])
        first, second = queue.lease(W, 8, ttl=30), queue.lease(W, 8, ttl=30)
        assert first is not None
        assert second is not None
        queue.nack(first, first.spans, charge=False)
        assert server.lrange(f"{{{model}}}:q:1", 0, -1) == ["0 8", "16 84"]
        queue.nack(second, second.spans, charge=False)
        assert sorted(images(tuple(s for x in drain(queue) for s in x.spans)))[-1] == (1, 99)

    def test_nack_of_a_part(self, queue: RedisQueue) -> None:
        queue.replace(lane(1), [Span(0, 8)])
        lease = queue.lease(W, 8, ttl=30)
        assert lease is not None
        assert queue.nack(lease, [replace(lease.spans[0], start=5, count=2)], charge=False)
        assert images(drain(queue)[0].spans) == {(1, 5), (1, 6)}

    def test_nack_charged_counts_an_attempt(self, queue: RedisQueue) -> None:
        queue.replace(lane(1), [Span(0, 1)])
        for attempt in range(5):
            lease = queue.lease(W, 8, ttl=30)
            assert lease is not None
            assert lease.spans == (LeasedSpan(1, 10, 0, 0, 1, attempt),)
            queue.nack(lease, lease.spans, charge=True)

    def test_nack_refunds(self, queue: RedisQueue) -> None:
        queue.replace(lane(1, tenant_id=1), [Span(0, 10_000)])
        queue.replace(lane(2, tenant_id=2, bucket=LARGE), [Span(0, 10_000)])
        served = Counter[str]()
        for _ in range(20):  # the first tenant's work always comes back unused
            lease = queue.lease(W, 10, ttl=30)
            assert lease is not None
            if lease.bucket == SMALL:
                queue.nack(lease, lease.spans, charge=False)
            else:
                served[lease.bucket] += lease.count
        for _ in range(100):
            lease = queue.lease(W, 10, ttl=30)
            assert lease is not None
            served[lease.bucket] += lease.count
        assert abs(served[SMALL] - served[LARGE]) <= 20

    def test_spans_of_unknown_lanes_are_dropped(
        self, queue: RedisQueue, keys: Callable[[], set[str]]
    ) -> None:
        queue.replace(lane(1), [Span(0, 4)])
        given_back, lost = queue.lease(W, 2, ttl=30), queue.lease(W, 2, ttl=30)
        assert given_back is not None
        assert lost is not None
        queue.drop([1], version=2)
        assert queue.snapshot([1])[1] == LaneCount(0, 4, 0, False)
        assert queue.nack(given_back, given_back.spans, charge=False)
        expire(queue, W, lost)
        assert queue.reap([lost.id]) == 1
        assert keys() == set()

    def test_spans_of_an_older_generation_are_dropped(self, queue: RedisQueue) -> None:
        queue.replace(lane(1), [Span(0, 4)])
        given_back, lost = queue.lease(W, 2, ttl=30), queue.lease(W, 2, ttl=30)
        assert given_back is not None
        assert lost is not None
        queue.replace(lane(1, generation=1, version=2), [Span(0, 1)])
        queue.nack(given_back, given_back.spans, charge=True)
        expire(queue, W, lost)
        queue.reap([lost.id])
        assert queue.snapshot([1])[1] == LaneCount(1, 0, 0, True)


class TestExpiry:
    def test_reap_takes_only_what_is_still_expired(self, queue: RedisQueue) -> None:
        queue.replace(lane(1), [Span(0, 8)])
        a, b = queue.lease(W, 4, ttl=30), queue.lease(W, 4, ttl=30)
        assert a is not None
        assert b is not None
        assert queue.expired() == []
        assert queue.reap([a.id, b.id]) == 0
        expire(queue, W, a, b)
        assert {e.lease for e in queue.expired()} == {a, b}
        assert len(queue.expired(limit=1)) == 1
        queue.beat(W, {a.id: True}, ttl=30)
        assert queue.reap([a.id, b.id]) == 1
        assert queue.snapshot([1])[1] == LaneCount(0, 4, 4, True)

    def test_a_lease_expires_by_the_servers_clock(self, queue: RedisQueue) -> None:
        queue.replace(lane(1), [Span(0, 1)])
        lease = queue.lease(W, 1, ttl=0.05)
        deadline = time.monotonic() + 5
        while not queue.expired():
            assert time.monotonic() < deadline
        assert [e.lease for e in queue.expired()] == [lease]

    def test_who_misses_a_renewal_is_silent(self, queue: RedisQueue) -> None:
        queue.replace(lane(1), [Span(0, 8)])
        silent, alive = queue.lease(W, 4, ttl=10), queue.lease(W, 4, ttl=600)
        assert silent is not None and alive is not None
        assert queue.silent(5) == []
        ((found, left),) = queue.silent(300)
        assert found == silent
        assert 0 < left <= 10
        expire(queue, W, silent)
        assert queue.silent(300) == [(silent, 0.0)]
        assert [e.lease for e in queue.expired()] == [silent], "and it is still to be reaped"

    def test_beat_marks_rendering_and_tells_what_is_gone(self, queue: RedisQueue) -> None:
        queue.replace(lane(1), [Span(0, 8)])
        a, b = queue.lease(W, 4, ttl=30), queue.lease(W, 4, ttl=30)
        assert a is not None
        assert b is not None
        assert queue.beat(W, {a.id: True, b.id: False, "other": False}, ttl=30) == {"other"}
        assert queue.beat("host-2", {a.id: True}, ttl=30) == {a.id}
        for rendering in ({a.id: True, b.id: False}, {a.id: False, b.id: True}):  # it begins, ends
            queue.beat(W, rendering, ttl=-0.001)
            assert {e.lease.id: e.rendering for e in queue.expired()} == rendering
        queue.ack(b.id)
        assert queue.beat(W, {a.id: False, b.id: False}, ttl=30) == {b.id}

    def test_retried_spans_shrink_and_end_alone(self, queue: RedisQueue) -> None:
        queue.replace(lane(1), [Span(0, 64)])
        sizes = dict[int, int]()
        while 3 not in sizes:
            lease = queue.lease(W, 64, ttl=30)
            assert lease is not None
            sizes[lease.spans[0].attempt] = lease.count
            expire(queue, W, lease)
            queue.reap([lease.id])
        assert sizes == {0: 64, 1: 32, 2: 16, 3: 1}

    def test_a_poison_image_is_alone_after_three_deaths_and_its_neighbours_render(
        self, queue: RedisQueue
    ) -> None:
        queue.replace(lane(1), [Span(0, 64)])
        poison, deaths, alone, done = (1, 17), 0, 0, set[tuple[int, int]]()
        while alone < 3:
            lease = queue.lease(f"boot-{deaths}", 64, ttl=30)
            assert lease is not None
            if poison not in images(lease.spans):
                queue.ack(lease.id)
                done |= images(lease.spans)
                continue
            deaths += 1
            alone += lease.count == 1
            expire(queue, lease.worker, lease)
            queue.reap([lease.id])
        assert deaths <= 6
        while lease := queue.lease("last", 64, ttl=30):
            assert lease.count == 1 or poison not in images(lease.spans)
            queue.ack(lease.id)
            done |= images(lease.spans)
        assert done == {(1, i) for i in range(64)}

    def test_a_solo_image_has_its_process_for_itself(self, queue: RedisQueue) -> None:
        queue.replace(lane(1), [Span(0, 100)])
        busy = queue.lease(W, 8, ttl=30)
        assert busy is not None
        queue.replace(lane(2), [Span(0, 2, attempt=3)])
        assert queue.lease(W, 8, ttl=30) is None  # empties itself
        other = queue.lease("host-2", 8, ttl=30)
        assert other is not None
        assert other.spans == (LeasedSpan(2, 20, 0, 0, 1, 3),)
        assert queue.lease("host-2", 8, ttl=30) is None  # nothing beside it
        assert queue.lease("host-2", 8, ttl=30, interactive=True) is None
        queue.ack(busy.id)
        mine = queue.lease(W, 8, ttl=30)
        assert mine is not None
        assert mine.spans == (LeasedSpan(2, 20, 0, 1, 1, 3),)
        queue.ack(other.id)
        after = queue.lease("host-2", 8, ttl=30)
        assert after is not None
        assert after.count == 8

    def test_only_one_worker_empties_itself(self, queue: RedisQueue) -> None:
        queue.replace(lane(1), [Span(0, 100)])
        for worker in ("a", "b"):
            assert queue.lease(worker, 8, ttl=30) is not None
        queue.replace(lane(2), [Span(0, 1, attempt=3)])
        assert queue.lease("a", 8, ttl=30) is None
        assert queue.lease("b", 8, ttl=30) is not None


class TestReplace:
    def test_subtracts_leases_and_waiting_retries(self, queue: RedisQueue) -> None:
        queue.replace(lane(1), [Span(0, 100)])
        kept, lost = queue.lease(W, 10, ttl=30), queue.lease(W, 10, ttl=30)
        assert kept is not None
        assert lost is not None
        expire(queue, W, lost)
        queue.reap([lost.id])
        for _ in range(2):  # idempotent
            assert queue.replace(lane(1), [Span(0, 100)])
            assert queue.snapshot([1])[1] == LaneCount(80, 10, 10, True)
        taken = [image for lease in drain(queue) for image in images(lease.spans)]
        assert sorted(taken) == [(1, i) for i in range(10, 100)]

    def test_keeps_the_attempts_it_is_told(self, queue: RedisQueue) -> None:
        queue.replace(lane(1), [Span(0, 2), Span(2, 1, attempt=2), Span(3, 4, attempt=5)])
        assert queue.snapshot([1])[1] == LaneCount(2, 0, 5, True)
        assert {s.attempt for lease in drain(queue) for s in lease.spans} == {0, 2, 5}

    @pytest.mark.parametrize(("generation", "version"), [(1, 4), (0, 6), (0, 1)])
    def test_refuses_an_older_state(self, queue: RedisQueue, generation: int, version: int) -> None:
        assert queue.replace(lane(1, generation=1, version=5), [Span(0, 4)])
        assert not queue.replace(lane(1, generation=generation, version=version), [Span(0, 9)])
        assert queue.snapshot([1])[1].queued == 4

    def test_drop_outlives_the_lane(self, queue: RedisQueue) -> None:
        queue.replace(lane(1, version=1), [Span(0, 4)])
        queue.drop([1, 2], version=3)
        assert queue.lease(W, 4, ttl=30) is None
        for id in (1, 2):
            assert not queue.replace(lane(id, version=2), [Span(0, 4)])
        assert queue.lane_ids() == []
        assert queue.replace(lane(1, version=4), [Span(0, 4)])
        assert queue.lane_ids() == [1]

    def test_tombstones_last_a_day(
        self, queue: RedisQueue, server: redis.Redis, model: str
    ) -> None:
        queue.drop([7], version=3)
        assert 86_000 < server.ttl(f"{{{model}}}:tomb:7") <= 86_400

    def test_a_late_drop_leaves_a_newer_lane(self, queue: RedisQueue) -> None:
        queue.replace(lane(1, version=5), [Span(0, 4)])
        queue.drop([1], version=4)
        assert queue.snapshot([1])[1] == LaneCount(4, 0, 0, True)

    def test_pause_and_resume_around_a_live_lease(self, queue: RedisQueue) -> None:
        queue.replace(lane(1, version=1), [Span(0, 10)])
        lease = queue.lease(W, 4, ttl=30)
        assert lease is not None
        queue.drop([1], version=2)
        queue.replace(lane(1, version=3), [Span(0, 10)])
        assert queue.snapshot([1])[1] == LaneCount(6, 4, 0, True)
        queue.nack(lease, lease.spans, charge=False)
        assert queue.snapshot([1])[1] == LaneCount(10, 0, 0, True)


class TestFairness:
    def served(self, queue: RedisQueue, leases: int, want: int = 32) -> Counter[int]:
        """Images served by lane."""
        served = Counter[int]()
        for _ in range(leases):
            lease = queue.lease(W, want, ttl=30)
            assert lease is not None
            for span in lease.spans:
                served[span.lane] += span.count
            queue.ack(lease.id)
        return served

    def test_served_cost_follows_weights(self, queue: RedisQueue) -> None:
        lanes = [
            lane(1, tenant_id=1, weight=1.0, cost=0.01, bucket=SMALL),
            lane(2, tenant_id=2, weight=2.0, cost=0.01, bucket=SMALL),
            lane(3, tenant_id=3, weight=1.0, cost=0.04, bucket=LARGE),
            lane(4, tenant_id=4, weight=3.0, cost=0.02, bucket="third"),
        ]
        for made in lanes:
            queue.replace(made, [Span(0, 10_000_000)])
        served = self.served(queue, 1000)
        total = sum(served[made.id] * made.cost for made in lanes)
        weights = sum(made.weight for made in lanes)
        for made in lanes:
            share = served[made.id] * made.cost / total
            assert share == pytest.approx(made.weight / weights, rel=0.05)

    def test_a_small_tenant_is_not_behind_a_big_one(self, queue: RedisQueue) -> None:
        queue.replace(lane(1, tenant_id=1), [Span(0, 100_000)])
        self.served(queue, 50)
        queue.replace(lane(2, tenant_id=2), [Span(0, 10)])
        assert self.served(queue, 2)[2] == 10

    def test_also_from_another_bucket_than_the_warm_one(self, queue: RedisQueue) -> None:
        queue.replace(lane(1, tenant_id=1), [Span(0, 100_000)])
        self.served(queue, 50)
        queue.replace(lane(2, tenant_id=2, bucket=LARGE), [Span(0, 10)])
        first = [queue.lease(W, 32, ttl=30, prefer=SMALL) for _ in range(3)]
        assert LARGE in [lease.bucket for lease in first if lease]

    def test_many_small_jobs_in_a_row_do_not_outrun_the_rest(self, queue: RedisQueue) -> None:
        queue.replace(lane(1, tenant_id=1), [Span(0, 100_000)])
        served, small = Counter[int](), 100
        for _ in range(200):
            if queue.snapshot([small])[small].queued == 0:
                small += 1
                queue.replace(lane(small, tenant_id=2, bucket=LARGE), [Span(0, 16)])
            lease = queue.lease(W, 16, ttl=30)
            assert lease is not None
            served[lease.spans[0].lane >= 100] += lease.count
        assert served[True] == pytest.approx(served[False], rel=0.1)

    def test_idle_time_is_no_credit(self, queue: RedisQueue) -> None:
        for i in (1, 2):
            queue.replace(lane(i, tenant_id=i), [Span(0, 100_000)])
        self.served(queue, 100)
        queue.replace(lane(3, tenant_id=3), [Span(0, 100_000)])
        served = self.served(queue, 30)
        assert served[3] == pytest.approx(sum(served.values()) / 3, rel=0.1)

    def test_lanes_of_a_tenant_take_turns(self, queue: RedisQueue) -> None:
        queue.replace(lane(1), [Span(0, 100_000)])
        self.served(queue, 50)
        for i in (2, 3):
            queue.replace(lane(i, bucket=(SMALL, LARGE)[i == 3]), [Span(0, 100_000)])
        served = self.served(queue, 90)
        assert all(n == pytest.approx(960, rel=0.1) for n in served.values())

    def test_bulk_gets_a_quarter_and_never_starves(self, queue: RedisQueue) -> None:
        queue.replace(lane(1, tenant_id=1, priority=Priority.BULK), [Span(0, 100_000)])
        queue.replace(lane(2, tenant_id=2), [Span(0, 100_000)])
        served = self.served(queue, 200)
        assert served[1] / served[2] == pytest.approx(0.25, rel=0.05)
        queue.drop([2], version=2)
        for i in range(100, 200):  # new normal work all the time, of the same tenant
            queue.replace(lane(i, tenant_id=1), [Span(0, 32)])
            self.served(queue, 1)
        assert queue.snapshot([1])[1].queued < 100_000 - served[1] - 100

    def test_interactive_first_but_not_only(self, queue: RedisQueue) -> None:
        queue.replace(lane(1, tenant_id=1), [Span(0, 100_000)])
        self.served(queue, 20)
        queue.replace(lane(2, tenant_id=2, priority=Priority.INTERACTIVE), [Span(0, 4)])
        assert self.served(queue, 1) == {2: 4, 1: 28}
        queue.replace(lane(3, tenant_id=2, priority=Priority.INTERACTIVE), [Span(0, 100_000)])
        served = self.served(queue, 100)
        assert served[3] / sum(served.values()) == pytest.approx(0.8, abs=0.02)

    def test_a_lease_says_that_somebody_waits_and_is_filled_up_only_where_that_is_wanted(
        self, queue: RedisQueue
    ) -> None:
        queue.replace(lane(1, tenant_id=1), [Span(0, 100)])
        queue.replace(lane(2, tenant_id=2, priority=Priority.INTERACTIVE), [Span(0, 3)])
        alone = queue.lease(W, 8, ttl=30, mix=False)
        assert alone is not None and alone.interactive
        assert images(alone.spans) == {(2, i) for i in range(3)}
        bulk = queue.lease(W, 8, ttl=30, mix=False)
        assert bulk is not None and not bulk.interactive
        queue.replace(lane(3, tenant_id=2, priority=Priority.INTERACTIVE), [Span(0, 3)])
        filled = queue.lease(W, 8, ttl=30)
        assert filled is not None and filled.interactive and filled.count == 8
        assert queue.nack(filled, filled.spans, charge=True)
        again = queue.lease(W, 8, ttl=30, mix=False)
        assert again is not None and again.interactive
        assert {span.attempt for span in again.spans} == {1}

    def test_an_interactive_slot_takes_nothing_else(self, queue: RedisQueue) -> None:
        queue.replace(lane(1), [Span(0, 100)])
        queue.replace(lane(2), [Span(0, 4, attempt=1)])
        assert queue.lease(W, 8, ttl=30, interactive=True) is None
        queue.replace(lane(3, priority=Priority.INTERACTIVE), [Span(0, 4)])
        lease = queue.lease(W, 8, ttl=30, interactive=True)
        assert lease is not None
        assert images(lease.spans) == {(3, i) for i in range(4)}


class TestDepth:
    def test_counts_images_and_generator_seconds(self, queue: RedisQueue) -> None:
        queue.replace(lane(1, cost=0.5), [Span(0, 10)])
        queue.replace(lane(2, cost=0.25, bucket=LARGE), [Span(0, 4)])
        assert queue.depth() == {
            "queued": 14, "leased": 0, "queued_seconds": 6.0, "leased_seconds": 0.0,
        }  # fmt: skip
        lease = queue.lease(W, 8, ttl=30)
        assert lease is not None
        cost = {SMALL: 0.5, LARGE: 0.25}[lease.bucket] * lease.count
        assert queue.depth()["leased_seconds"] == cost
        assert queue.queued_seconds() == 6.0 - cost
        queue.nack(lease, lease.spans, charge=True)
        assert queue.queued_seconds() == 6.0
        queue.replace(lane(1, cost=1.0), [Span(0, 10)])
        assert queue.queued_seconds() == 11.0

    def test_a_huge_lane_is_one_entry(
        self, queue: RedisQueue, server: redis.Redis, model: str
    ) -> None:
        queue.replace(lane(1), [Span(0, 10_000_000)])
        for _ in range(20):
            queue.lease(W, 64, ttl=30)
        assert server.llen(f"{{{model}}}:q:1") == 1
        assert queue.depth()["queued"] == 10_000_000 - 20 * 64

    def test_a_job_costs_less_than_a_kilobyte(
        self, queue: RedisQueue, server: redis.Redis, model: str
    ) -> None:
        jobs = 2000
        for i in range(jobs):
            queue.replace(lane(10**9 + i, job_id=10**9 + i, tenant_id=i % 50), [Span(0, 1000)])
        found = server.scan_iter(f"{{{model}}}:*", count=1000)
        used = sum(server.memory_usage(key, samples=0) or 0 for key in found)
        assert used / jobs < 1000

    def test_nothing_of_jobs_remains(self, queue: RedisQueue, keys: Callable[[], set[str]]) -> None:
        everything = range(1, 40)
        for i in everything:
            queue.replace(
                lane(
                    i, tenant_id=i % 5, weight=1 + i % 3, bucket=(SMALL, LARGE, "third")[i % 3],
                    priority=list(Priority)[i % 3 if i < 30 else 0],
                ),
                [Span(0, i), Span(i, 5, attempt=i % 4)],
            )  # fmt: skip
        live = []
        for n in range(60):
            lease = queue.lease(f"w-{n % 4}", 8, ttl=30, interactive=n % 4 == 0)
            if lease is None:
                continue
            if n % 3 == 0:
                queue.nack(lease, lease.spans[:1], charge=n % 2 == 0)
            elif n % 3 == 1:
                live.append(lease)
            else:
                expire(queue, lease.worker, lease)
                queue.reap([lease.id])
        assert keys() > {"lanes", "depth", "lease", "exp"}
        queue.drop(list(everything), version=9)
        for lease in live:
            queue.ack(lease.id)
        assert keys() == set()
        assert queue.depth()["queued"] == 0

    def test_nothing_remains_of_jobs_that_ran_out(
        self, queue: RedisQueue, keys: Callable[[], set[str]]
    ) -> None:
        for i in range(1, 20):
            priority = (Priority.INTERACTIVE, Priority.NORMAL)[i % 2]
            queue.replace(lane(i, tenant_id=i % 4, priority=priority), [Span(0, 3 * i)])
        drain(queue, 16)
        assert keys() == {"lanes"}
        queue.drop(list(range(1, 20)), version=2)
        assert keys() == set()


class TestWorkers:
    def test_registry(self, queue: RedisQueue) -> None:
        queue.report("b", {"state": "idle", "batch": 32}, ttl=30)
        queue.report("a", {"state": "busy"}, ttl=30)
        queue.report("dead", {"state": "busy"}, ttl=-0.001)
        assert queue.workers() == [
            {"worker": "a", "state": "busy"},
            {"worker": "b", "state": "idle", "batch": 32},
        ]
        queue.forget("a")
        assert [w["worker"] for w in queue.workers()] == ["b"]

    def test_publish_and_listen(self, queue: RedisQueue, queue_server_url: str) -> None:
        stop = threading.Event()
        heard = queue.listen(stop)
        other = RedisQueue(queue_server_url, queue.model)
        for job in ("job_a", "job_b"):
            other.publish(job)
        assert [next(heard), next(heard)] == ["job_a", "job_b"]
        stop.set()
        assert list(heard) == []
        other.close()

    def test_each_worker_hears_a_call(self, queue: RedisQueue) -> None:
        assert queue.call() == 0
        stop = threading.Event()
        ears = [queue.calls(stop), queue.calls(stop)]
        queue.publish("job_a")  # is for others
        assert queue.call() == 2
        assert [next(ear) for ear in ears] == [None, None]
        stop.set()
        assert [list(ear) for ear in ears] == [[], []]


class TestServer:
    def test_forgotten_scripts_are_sent_again(self, queue: RedisQueue, server: redis.Redis) -> None:
        queue.replace(lane(1), [Span(0, 4)])
        server.script_flush()
        lease = queue.lease(W, 4, ttl=30)
        assert lease is not None
        server.script_flush()
        assert queue.ack(lease.id)

    def test_threads_share_a_queue(self, queue: RedisQueue) -> None:
        queue.replace(lane(1), [Span(0, 2000)])
        taken: list[Lease] = []
        threads = [threading.Thread(target=lambda: taken.extend(drain(queue, 7))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        found = [image for lease in taken for image in images(lease.spans)]
        assert len(found) == len(set(found)) == 2000

    @pytest.mark.parametrize("url", ["unix:///nowhere/redis.sock", "redis://:secret@127.0.0.1:1/0"])
    def test_out_of_reach(self, url: str) -> None:
        queue = RedisQueue(url, "m")
        with pytest.raises(errors.RedisDown) as caught:
            queue.ping()
        with pytest.raises(errors.RedisDown):
            queue.lease(W, 1, ttl=30)
        with pytest.raises(errors.RedisDown):
            queue.listen()
        with pytest.raises(errors.RedisDown):
            queue.calls()
        assert "PROMPTMILL_REDIS_URL" in str(caught.value)
        assert "secret" not in str(caught.value)
        queue.close()
