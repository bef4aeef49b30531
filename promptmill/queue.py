"""The scheduler's port: spans of lanes, leases on them, the registry of workers. What stands
behind it is a copy that may be lost at any moment; the database is the truth, and no scheduler
ever sees it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from threading import Event
from typing import Any, Protocol

from promptmill import errors
from promptmill.leases import Expired, LaneCount, Lease, LeasedSpan, QueueLane, Span


class Cold(errors.Unavailable):
    """The queue is empty after a loss of Redis; control is rebuilding it."""

    code = "queue_cold"


class Queue(Protocol):
    """What a scheduler does for one model. Every call may raise `errors.RedisDown`."""

    model: str

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
        """At most `want` images of one bucket for `ttl` seconds, or None: nothing to do.
        `interactive`: nothing else. `prefer`: the bucket that this worker has warm. `mix`:
        interactive images may be filled up with others. Raises `Cold` before a rebuild."""

    def ack(self, lease_id: str) -> bool:
        """Ends a lease whose work is committed; False: it was no longer there."""

    def nack(self, lease: Lease, spans: Sequence[LeasedSpan], *, charge: bool) -> bool:
        """Ends a lease and gives `spans` of it back (`charge`: one attempt more)."""

    def beat(self, worker: str, leases: Mapping[str, bool], *, ttl: float) -> set[str]:
        """Renews {lease id: it renders now}; returns the ids that are gone."""

    def replace(self, lane: QueueLane, spans: Sequence[Span]) -> bool:
        """The lane's queue becomes `spans` (ascending, disjoint) minus what is leased or
        waits for a retry; False: a newer (generation, version) was here already."""

    def drop(self, lane_ids: Sequence[int], *, version: int) -> None:
        """Takes lanes out of the queue and remembers the job's version for a day."""

    def expired(self, limit: int = 100) -> list[Expired]:
        """Leases past their deadline, oldest first; changes nothing."""

    def reap(self, lease_ids: Sequence[str]) -> int:
        """Gives the spans of still expired leases back, one attempt more; how many leases."""

    def silent(self, within: float) -> list[tuple[Lease, float]]:
        """Leases that end in less than `within` seconds, with the seconds they have left:
        their workers have not renewed them for a while. Changes nothing."""

    def snapshot(self, lane_ids: Sequence[int]) -> dict[int, LaneCount]:
        """Where the images of these lanes are, all at one instant."""

    def epoch(self) -> str | None:
        """The token of the last rebuild; None: cold."""

    def begin_rebuild(self) -> str:
        """Returns the token by which `set_epoch` knows that nothing was emptied since."""

    def set_epoch(self, token: str) -> bool:
        """Says that the queue is rebuilt; leases are given from now on. False, and nothing is
        said, where the server was emptied since that rebuild began, or another one began."""

    def set_cap(self, bucket: str, cap: int) -> None:
        """No lease of `bucket` holds more than `cap` images."""

    def caps(self) -> dict[str, int]:
        """The caps that were set, by bucket."""

    def queued_seconds(self) -> float:
        """Generator-seconds of all images that wait."""

    def depth(self) -> dict[str, float]:
        """{queued, leased: images; queued_seconds, leased_seconds: generator-seconds}.
        Queued includes what waits for a retry."""

    def lane_ids(self) -> list[int]:
        """All registered lanes."""

    def report(self, worker: str, status: Mapping[str, Any], *, ttl: float) -> None:
        """Registers a worker as alive for `ttl` seconds."""

    def workers(self) -> list[dict[str, Any]]:
        """The status of each worker alive, and its name under `worker`."""

    def forget(self, worker: str) -> None:
        """A worker has left."""

    def publish(self, job: str) -> None:
        """Tells whoever listens that results of this job (public id) are committed."""

    def listen(self, stop: Event | None = None) -> Iterator[str]:
        """Public ids of jobs as they are published from now on, until `stop` is set."""

    def call(self) -> int:
        """Tells every worker that somebody waits for a single picture; how many heard it."""

    def calls(self, stop: Event | None = None) -> Iterator[None]:
        """One for each such call from now on, until `stop` is set."""

    def ping(self) -> None:
        """Raises `errors.RedisDown` unless the server answers."""

    def close(self) -> None:
        """Closes all connections."""
