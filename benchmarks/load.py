"""A closed loop of HTTP GETs over kept-alive connections, as light as it can be, so that the
server is what is measured. No redirects, no chunked answers."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from urllib.parse import urlsplit


async def _client(
    host: str, port: int, requests: Iterator[bytes], until: float, times: list[float]
) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        while time.perf_counter() < until:
            begun = time.perf_counter()
            writer.write(next(requests))
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(head.decode("latin-1"))
            length = next(
                int(line.partition(b":")[2])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            )
            await reader.readexactly(length)
            times.append(time.perf_counter() - begun)
    finally:
        writer.close()


def get(*urls: str, seconds: float, connections: int = 8) -> list[float]:
    """Asks for `urls`, of one server, in turn; the seconds of each answer."""
    parts = urlsplit(urls[0])
    host, port = parts.hostname or "", parts.port or 80
    requests = itertools.cycle(
        f"GET {urlsplit(url).path} HTTP/1.1\r\nhost: {host}:{port}\r\n\r\n".encode() for url in urls
    )
    times: list[float] = []

    async def run() -> None:
        until = time.perf_counter() + seconds
        await asyncio.gather(
            *(_client(host, port, requests, until, times) for _ in range(connections))
        )

    asyncio.run(run())
    return times
