"""Closed loops of HTTP requests over kept-alive connections, as light as they can be, so that
the server is what is measured. No redirects."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit


async def _client(
    host: str, port: int, requests: Iterator[bytes], until: float, times: list[float]
) -> None:
    """Sends the next request as soon as the last is answered, until there are none or the
    time is up."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        for request in requests:
            begun = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(head.decode("latin-1"))
            await _skip_body(reader, head.lower())
            times.append(time.perf_counter() - begun)
            if time.perf_counter() >= until:
                return
    finally:
        writer.close()


async def _skip_body(reader: asyncio.StreamReader, head: bytes) -> None:
    if b"\r\ntransfer-encoding: chunked" in head:
        while size := int(await reader.readline(), 16):
            await reader.readexactly(size + len(b"\r\n"))
        await reader.readexactly(len(b"\r\n"))
        return
    length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))


def get(*urls: str, seconds: float, connections: int = 8) -> list[float]:
    """Asks for `urls`, of one server, in turn; the seconds of each answer."""
    host, port = _place(urls[0])
    requests = itertools.cycle(
        f"GET {urlsplit(url).path} HTTP/1.1\r\nhost: {host}:{port}\r\n\r\n".encode() for url in urls
    )
    return _ask(host, port, requests, seconds=seconds, connections=connections)


def post(url: str, bodies: Iterable[bytes], *, connections: int) -> list[float]:
    """Posts each JSON body once; the seconds of each answer."""
    host, port = _place(url)
    head = (
        f"POST {urlsplit(url).path} HTTP/1.1\r\nhost: {host}:{port}\r\n"
        "content-type: application/json\r\ncontent-length: "
    )
    requests = (f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies)
    return _ask(host, port, requests, seconds=float("inf"), connections=connections)


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 80


def _ask(
    host: str, port: int, requests: Iterator[bytes], *, seconds: float, connections: int
) -> list[float]:
    times: list[float] = []

    async def run() -> None:
        until = time.perf_counter() + seconds
        await asyncio.gather(
            *(_client(host, port, requests, until, times) for _ in range(connections))
        )

    asyncio.run(run())
    return times
