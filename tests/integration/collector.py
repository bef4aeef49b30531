"""A collector of traces over OTLP/HTTP that keeps what it is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """status: what it answers from now on; anything but 200 is a refusal."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.status = 200
        self.posts: list[tuple[str, bytes]] = []

    @property
    def sent(self) -> bytes:
        return b"".join(body for _, body in self.posts)

    def told(self) -> list[tuple[str, Span]]:
        """(service, span) of all that came."""
        return [
            (attributes(resource.resource)["service.name"], span)
            for _, body in list(self.posts)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def spans(self, name: str) -> list[Span]:
        return [span for _, span in self.told() if span.name == name]

    def one(self, name: str) -> Span:
        [span] = self.spans(name)
        return span


def attributes(owner: Any) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        kind = value.WhichOneof("value")
        held = getattr(value, kind)
        return [plain(one) for one in held.values] if kind == "array_value" else held

    return {pair.key: plain(pair.value) for pair in owner.attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.posts.append((self.path, body))
            self.send_response(collector.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join(5)
