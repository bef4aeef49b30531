"""What is told of requests, jobs and micro-batches to whoever collects traces. Without an
endpoint nothing is told and no library imported; `otlp` owns all that knows OpenTelemetry. A span
never holds a byte of a prompt, a key, a path or a query; of an error only its type."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from promptmill import errors
from promptmill.leases import Lease
from promptmill.records import Job, Work

Answered = Callable[[str | None, int], None]  # route's pattern, status


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch that is over. works: what was fetched for it. began: by `time.monotonic`.
    seconds: of each step that ended, in their order, one beginning where the one before ended."""

    lease: Lease
    works: Sequence[Work]
    began: float
    seconds: Mapping[str, float]
    failure: type[Exception] | None


class Traces(Protocol):
    """Never raises and never waits, but for `close`."""

    def request(self, method: str, traceparent: str) -> AbstractContextManager[Answered]:
        """Around the work on a request; what it gives is called with the answer's head."""
        ...

    def accepted(self, job: Job, *, tenant: str | None) -> None:
        """A new job, by the request that this context works on, if by any."""
        ...

    def batch(self, batch: Batch) -> None: ...

    def ended(self, job: Job) -> None:
        """A job that is over, in whichever final state."""
        ...

    def close(self) -> None:
        """Sends what is left, for at most two seconds."""
        ...


class NoTraces:
    def request(self, method: str, traceparent: str) -> AbstractContextManager[Answered]:
        return nullcontext(lambda route, status: None)

    def accepted(self, job: Job, *, tenant: str | None) -> None:
        """Nobody collects."""

    def batch(self, batch: Batch) -> None:
        """Nobody collects."""

    def ended(self, job: Job) -> None:
        """Nobody collects."""

    def close(self) -> None:
        """Nothing is left."""


UNTRACED = NoTraces()


def ids_of(job: str) -> tuple[int, int]:
    """Trace id and root span id of a job, from its public id alone: every process finds them."""
    digest = hashlib.sha256(job.encode()).digest()
    return int.from_bytes(digest[:16]), int.from_bytes(digest[16:24])


def configure(service: str, endpoint: str) -> Traces:
    """Traces of the process `service` (api, worker, control), sent to the OTLP/HTTP collector
    at `endpoint`; to nobody when that is empty. Raises `errors.SettingInvalid`."""
    if not endpoint:
        return UNTRACED
    try:
        from promptmill.traces import otlp
    except ModuleNotFoundError as exc:
        raise errors.SettingInvalid(
            f"PROMPTMILL_OTEL_ENDPOINT needs {exc.name}: pip install 'promptmill[otel]'",
            param="PROMPTMILL_OTEL_ENDPOINT",
        ) from exc
    return otlp.Collected(service, endpoint)
