"""The scheduler in Redis or Valkey: each call one script of `lua/` or one command."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from threading import Event
from typing import Any

from promptmill.jobs import Priority
from promptmill.leases import Expired, LaneCount, Lease, LeasedSpan, QueueLane, Span
from promptmill.queue import Cold
from promptmill.redis_link import Link, translated

QUANTUM = 8  # images that one lane gives before the next tenant's turn in a micro-batch
INTERACTIVE_SHARE = 4  # interactive leases in a row while other work waits: four fifths
BULK_WEIGHT = 0.25  # bulk counts as this part of its tenant's weight; virtual time ages it
TOMBSTONE_SECONDS = 86_400
LEAST_COST_US = 1


def _parse_lease(lease_id: str, record: str) -> Lease:
    worker, bucket, _cost, order, text = record.split("\n")
    spans = (LeasedSpan(*map(int, span.split())) for span in text.split(";") if span)
    return Lease(lease_id, worker, bucket, tuple(spans), interactive=order == "i")


def _span_text(span: LeasedSpan) -> str:
    return f"{span.lane} {span.job_id} {span.generation} {span.start} {span.count} {span.attempt};"


class RedisQueue:
    """The scheduler of `model` in the Redis or Valkey at `redis_url`. Thread-safe."""

    def __init__(self, redis_url: str, model: str) -> None:
        self.model = model
        self._prefix = f"{{{model}}}:"
        self._link = Link(redis_url, prefix=self._prefix)

    def lease(
        self,
        worker: str,
        want: int,
        *,
        ttl: float,
        interactive: bool = False,
        prefer: str | None = None,
        mix: bool = True,
    ) -> Lease | None:
        lease_id = secrets.token_hex(8)  # ours, so that a resent call gets the same lease
        shares = QUANTUM, INTERACTIVE_SHARE
        args = (worker, want, round(ttl * 1000), int(interactive), prefer or "", *shares, int(mix))
        record = self._link.run("lease", lease_id, *args)
        if record == "COLD":
            raise Cold
        return _parse_lease(lease_id, record) if record else None

    def ack(self, lease_id: str) -> bool:
        return bool(self._link.run("ack", lease_id))

    def nack(self, lease: Lease, spans: Sequence[LeasedSpan], *, charge: bool) -> bool:
        text = "".join(_span_text(span) for span in spans)
        return bool(self._link.run("nack", lease.id, int(charge), text))

    def beat(self, worker: str, leases: Mapping[str, bool], *, ttl: float) -> set[str]:
        pairs = [part for id, begun in leases.items() for part in (id, int(begun))]
        return set(self._link.run("beat", worker, round(ttl * 1000), *pairs))

    def replace(self, lane: QueueLane, spans: Sequence[Span]) -> bool:
        seconds = max(lane.cost, LEAST_COST_US / 1e6)
        share = lane.weight * (BULK_WEIGHT if lane.priority is Priority.BULK else 1.0)
        reply = self._link.run(
            "replace",
            lane.id,
            lane.job_id,
            lane.generation,
            lane.version,
            lane.tenant_id,
            "i" if lane.priority is Priority.INTERACTIVE else "s",
            max(round(seconds * 1e6), LEAST_COST_US),
            repr(seconds / share),
            lane.bucket,
            "".join(f"{s.start} {s.count} {s.attempt};" for s in spans),
        )
        return bool(reply)

    def drop(self, lane_ids: Sequence[int], *, version: int) -> None:
        self._link.run("drop", version, TOMBSTONE_SECONDS * 1000, *lane_ids)

    def expired(self, limit: int = 100) -> list[Expired]:
        flat = self._link.run("expired", limit)
        triples = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        return [Expired(_parse_lease(id, record), bool(begun)) for id, record, begun in triples]

    def reap(self, lease_ids: Sequence[str]) -> int:
        return int(self._link.run("reap", *lease_ids))

    def silent(self, within: float) -> list[tuple[Lease, float]]:
        with self._link.client() as client:
            seconds, micros = client.time()
            now = seconds + micros / 1e6
            ends = client.zrangebyscore(
                self._prefix + "exp", "-inf", (now + within) * 1000, withscores=True
            )
            texts = client.hmget(self._prefix + "lease", [id for id, _ in ends]) if ends else []
        return [
            (_parse_lease(id, text), max(0.0, end / 1000 - now))
            for (id, end), text in zip(ends, texts, strict=True)
            if text
        ]

    def snapshot(self, lane_ids: Sequence[int]) -> dict[int, LaneCount]:
        flat = self._link.run("snapshot", *lane_ids)
        rows = zip(flat[::4], flat[1::4], flat[2::4], flat[3::4], strict=True)
        return {
            lane: LaneCount(queued, leased, retry, bool(registered))
            for lane, (queued, leased, retry, registered) in zip(lane_ids, rows, strict=True)
        }

    def epoch(self) -> str | None:
        with self._link.client() as client:
            token: str | None = client.get(self._prefix + "epoch")
            return token

    def begin_rebuild(self) -> str:
        token = secrets.token_hex(8)
        with self._link.client() as client:
            client.set(self._prefix + "rebuilding", token)
        return token

    def set_epoch(self, token: str) -> bool:
        return bool(self._link.run("epoch", token))

    def set_cap(self, bucket: str, cap: int) -> None:
        with self._link.client() as client:
            client.hset(self._prefix + "caps", bucket, max(1, cap))

    def caps(self) -> dict[str, int]:
        with self._link.client() as client:
            found = client.hgetall(self._prefix + "caps")
        return {bucket: int(cap) for bucket, cap in found.items()}

    def queued_seconds(self) -> float:
        return self.depth()["queued_seconds"]

    def depth(self) -> dict[str, float]:
        with self._link.client() as client:
            found = client.hgetall(self._prefix + "depth")
        return {
            "queued": int(found.get("queued", 0)),
            "leased": int(found.get("leased", 0)),
            "queued_seconds": int(found.get("queued_us", 0)) / 1e6,
            "leased_seconds": int(found.get("leased_us", 0)) / 1e6,
        }

    def lane_ids(self) -> list[int]:
        with self._link.client() as client:
            return [int(lane) for lane in client.hkeys(self._prefix + "lanes")]

    def report(self, worker: str, status: Mapping[str, Any], *, ttl: float) -> None:
        self._link.run("report", worker, json.dumps(dict(status)), round(ttl * 1000))

    def workers(self) -> list[dict[str, Any]]:
        flat = self._link.run("workers")
        pairs = sorted(zip(flat[::2], flat[1::2], strict=True))
        return [{**json.loads(status), "worker": worker} for worker, status in pairs]

    def forget(self, worker: str) -> None:
        with self._link.client() as client, client.pipeline() as pipe:
            pipe.hdel(self._prefix + "workers", worker)
            pipe.zrem(self._prefix + "alive", worker)
            pipe.execute()

    def publish(self, job: str) -> None:
        with self._link.client() as client:
            client.publish(self._prefix + "done", job)

    def listen(self, stop: Event | None = None) -> Iterator[str]:
        """Subscribed when it returns: what is committed later is heard. Raises
        `errors.RedisDown` when the connection breaks."""
        return self._heard(self._subscribed("done"), stop or Event())

    def call(self) -> int:
        with self._link.client() as client:
            return int(client.publish(self._prefix + "call", ""))

    def calls(self, stop: Event | None = None) -> Iterator[None]:
        """As `listen`."""
        heard = self._heard(self._subscribed("call"), stop or Event())
        return (None for _ in heard)

    def _subscribed(self, channel: str) -> Any:
        with self._link.client() as client:
            subscription = client.pubsub()
            subscription.subscribe(self._prefix + channel)
            subscription.get_message(timeout=5.0)  # the confirmation
        return subscription

    def _heard(self, subscription: Any, stop: Event) -> Iterator[str]:
        try:
            while not stop.is_set():
                with translated(self._link.url):
                    message = subscription.get_message(timeout=0.5)
                if message and message["type"] == "message":
                    yield message["data"]
        finally:
            subscription.close()

    def ping(self) -> None:
        with self._link.client() as client:
            client.ping()

    def close(self) -> None:
        self._link.close()
