"""Spans by the OpenTelemetry SDK, sent in batches by a thread of its own. The process's global
tracer is left alone: libraries that trace by themselves write down addresses and queries."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from promptmill import __version__
from promptmill.records import Job
from promptmill.traces import Answered, Batch, ids_of

log = logging.getLogger(__name__)

CLOSE_SECONDS = 2.0
MOST_JOBS = 32  # that a micro-batch names and links to
SAMPLED = trace.TraceFlags(trace.TraceFlags.SAMPLED)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The request that a context works on. began: nanoseconds since the epoch."""

    span: trace.SpanContext
    began: int


_ASKED: ContextVar[_Asked | None] = ContextVar("promptmill_asked", default=None)
_ROOT: ContextVar[tuple[int, int] | None] = ContextVar("promptmill_root", default=None)


class Collected:
    """Traces that a collector takes. A batch that it does not take in ten seconds is dropped,
    as are spans beyond 2,048 that wait. `OTEL_TRACES_SAMPLER` says which are told at all; of a
    job every process finds the same, from the id of its trace."""

    def __init__(self, service: str, endpoint: str) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # `_Sender` says it once
        self._sender = _Sender(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces"))
        self._provider = TracerProvider(
            resource=_process(service),
            shutdown_on_exit=False,
            id_generator=_Ids(),
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._sender))
        self._tracer = self._provider.get_tracer("promptmill", __version__)

    @contextmanager
    def request(self, method: str, traceparent: str) -> Iterator[Answered]:
        caller = TraceContextTextMapPropagator().extract({"traceparent": traceparent}, Context())
        began = time.time_ns()
        span = self._tracer.start_span(
            method,
            caller,
            kind=trace.SpanKind.SERVER,
            attributes={"http.request.method": method},
            start_time=began,
        )

        def answered(route: str | None, status: int) -> None:
            if route is not None:
                span.update_name(f"{method} {route}")
                span.set_attribute("http.route", route)
            span.set_attribute("http.response.status_code", status)
            if status >= 500:
                span.set_status(trace.StatusCode.ERROR)
            span.end()

        token = _ASKED.set(_Asked(span.get_span_context(), began))
        try:
            yield answered
        finally:
            _ASKED.reset(token)
            if span.is_recording():  # whoever asked left before the answer
                span.end()

    def accepted(self, job: Job, *, tenant: str | None) -> None:
        asked = _ASKED.get()
        told: dict[str, str | int] = {
            "promptmill.job": job.public_id,
            "promptmill.images": job.counts.total,
            "promptmill.model": job.model,
        }
        if tenant is not None:
            told["promptmill.tenant"] = tenant
        token = _ROOT.set(ids_of(job.public_id))
        try:
            self._tracer.start_span(
                "job",
                Context(),
                attributes=told,
                links=[trace.Link(asked.span)] if asked else [],
                start_time=asked.began if asked else None,
            ).end()
        finally:
            _ROOT.reset(token)

    def batch(self, batch: Batch) -> None:
        now, wall = time.monotonic(), time.time_ns()

        def moment(by_monotonic: float) -> int:
            return wall - int((now - by_monotonic) * 1e9)

        jobs = sorted({work.job for work in batch.works})[:MOST_JOBS]
        roots = [self._root_of(job) for job in jobs]
        span = self._tracer.start_span(
            "micro-batch",
            _inside(roots[0]) if len(roots) == 1 else Context(),
            kind=trace.SpanKind.CONSUMER,
            attributes={
                "promptmill.bucket": batch.lease.bucket,
                "promptmill.images": batch.lease.count,
                "promptmill.jobs": jobs,
                "promptmill.worker": batch.lease.worker,
                "messaging.message.id": batch.lease.id,
            },
            links=[trace.Link(root) for root in roots] if len(roots) > 1 else [],
            start_time=moment(batch.began),
        )
        if batch.failure is not None:
            kind = batch.failure.__qualname__
            span.set_attribute("error.type", kind)
            span.set_status(trace.StatusCode.ERROR, kind)
        context, at = _inside(span.get_span_context()), batch.began
        for name, seconds in batch.seconds.items():
            step = self._tracer.start_span(name, context, start_time=moment(at))
            at += seconds
            step.end(moment(at))
        span.end(wall)

    def ended(self, job: Job) -> None:
        span = self._tracer.start_span(
            "job.ended",
            _inside(self._root_of(job.public_id)),
            attributes={
                "promptmill.job": job.public_id,
                "promptmill.state": str(job.state),
                "promptmill.done": job.counts.done,
                "promptmill.failed": job.counts.failed,
            },
            start_time=int(job.created_at * 1e9),
        )
        span.end(None if job.finished_at is None else int(job.finished_at * 1e9))

    def close(self) -> None:
        closing = threading.Thread(
            target=self._provider.shutdown, name="traces-closing", daemon=True
        )
        closing.start()
        closing.join(CLOSE_SECONDS)
        self._sender.shutdown()

    def _root_of(self, job: str) -> trace.SpanContext:
        trace_id, span_id = ids_of(job)
        found = self._provider.sampler.should_sample(Context(), trace_id, "job")
        taken = found.decision is Decision.RECORD_AND_SAMPLE
        flags = SAMPLED if taken else trace.TraceFlags.get_default()
        return trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags)


def _process(service: str) -> Resource:
    return Resource.create(
        {
            "service.name": f"promptmill-{service}",
            "service.instance.id": "-".join(
                (socket.gethostname(), str(os.getpid()), secrets.token_hex(3))
            ),
            "service.version": __version__,
        }
    )


def _inside(parent: trace.SpanContext) -> Context:
    return trace.set_span_in_context(trace.NonRecordingSpan(parent), Context())


class _Ids(RandomIdGenerator):
    """Random ones, but for the root of a job."""

    def generate_trace_id(self) -> int:
        root = _ROOT.get()
        return super().generate_trace_id() if root is None else root[0]

    def generate_span_id(self) -> int:
        root = _ROOT.get()
        return super().generate_span_id() if root is None else root[1]


class _Sender(SpanExporter):
    """Says once that the collector takes nothing, and once that it does again."""

    def __init__(self, exporter: OTLPSpanExporter) -> None:
        self._exporter = exporter
        self._lost = False
        self._over = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        lost = result is not SpanExportResult.SUCCESS
        if lost and not self._lost:
            log.warning("traces are lost: what PROMPTMILL_OTEL_ENDPOINT names does not take them")
        elif self._lost and not lost:
            log.info("traces are taken again")
        self._lost = lost
        return result

    def shutdown(self) -> None:
        """Ends the wait between two attempts, too."""
        if not self._over:
            self._over = True
            self._exporter.shutdown()  # type: ignore[no-untyped-call]
