"""What Prometheus reads: requests and their time by route, and the work of the farm, by
model, read from Redis when it is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.farm import Farm
from promptmill import telemetry
from promptmill.store import models

GAUGES = (
    ("promptmill_work_seconds", "Generator-seconds queued or leased: scale workers by this"),
    ("promptmill_queued_images", "Images that wait"),
    ("promptmill_leased_images", "Images that a worker holds"),
    ("promptmill_workers", "Workers alive"),
)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """Those of one application: two in a process tell each their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "promptmill_http_requests_total",
            "Requests answered",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "promptmill_http_request_seconds",
            "Time to the first byte of an answer; of a submission, its whole upload",
            ("method", "route"),
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
            registry=self.registry,
        )
        for of_process in (ProcessCollector, PlatformCollector, GCCollector):
            of_process(registry=self.registry)


def watch(farm: Farm, registry: CollectorRegistry) -> Callable[[], None]:
    """Registers the farm's gauges; returns what takes them off again."""

    def by_model(read: Callable[[str], float]) -> dict[tuple[str, ...], float]:
        return {(model.name,): read(model.name) for model in models.all(farm.db)}

    def work(model: str) -> float:
        depth = farm.queue(model).depth()
        return depth["queued_seconds"] + depth["leased_seconds"]

    reads: tuple[Callable[[str], float], ...] = (
        work,
        lambda model: farm.queue(model).depth()["queued"],
        lambda model: farm.queue(model).depth()["leased"],
        lambda model: len(farm.queue(model).workers()),
    )
    off = [
        telemetry.on_scrape(
            name, text, labels=("model",), read=partial(by_model, read), registry=registry
        )
        for (name, text), read in zip(GAUGES, reads, strict=True)
    ]

    def stop() -> None:
        for each in off:
            each()

    return stop


class Metered:
    """Counts and times each request under its route's pattern, never under its path."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        method = scope["method"] if scope["method"] in METHODS else "other"

        async def metered(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "none")
                self._metrics.requests.labels(method, route, message["status"]).inc()
                self._metrics.seconds.labels(method, route).observe(time.perf_counter() - started)
            await send(message)

        await self._app(scope, receive, metered)
