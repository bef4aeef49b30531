"""A million prompts over HTTP until they are durable and queued, beside a bare COPY of one
row an image (Postgres) or a bare insert of them (SQLite, one transaction, synchronous=FULL)
in the same run; the API's memory meanwhile; a burst of a thousand jobs of one image."""

from __future__ import annotations

import argparse
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from operator import truediv
from pathlib import Path

import httpx

from benchmarks import stacks
from benchmarks.report import Figure, show

BURST = 1000
AT_ONCE = 16
PIECE = 10_000  # lines


def line(number: int) -> bytes:
    return (
        b'{"prompt": "a watercolour of a lighthouse on a cliff at dawn, number %d, with gulls over'
        b' a calm sea and a red boat", "seed": %d}\n' % (number, number)
    )


def body(count: int) -> Iterator[bytes]:
    for first in range(0, count, PIECE):
        yield b"".join(map(line, range(first, min(count, first + PIECE))))


def resident(pid: int, field: str = "VmRSS") -> float:
    """MB of a process: what it holds (VmRSS) or held at most (VmHWM)."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1000 if found else 0.0


def submit(http: httpx.Client, count: int) -> float:
    begun = time.perf_counter()
    answer = http.post(
        "/v1/jobs",
        content=body(count),
        headers={"content-type": "application/x-ndjson"},
        timeout=600,
    )
    answer.raise_for_status()
    return time.perf_counter() - begun


def bare(servers: stacks.Stack, count: int) -> float:
    """Seconds for one row an image: index, prompt, seed, state."""
    rows = ((n, line(n).decode(), n, 0) for n in range(count))
    url = servers.environ.get("PROMPTMILL_DATABASE_URL")
    begun = time.perf_counter()
    if url is None:
        with closing(sqlite3.connect(servers.folder / "bare.db", isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("DROP TABLE IF EXISTS bare")
            db.execute(
                "CREATE TABLE bare (n INTEGER PRIMARY KEY, prompt TEXT, seed INT, state INT)"
            )
            db.execute("BEGIN")
            db.executemany("INSERT INTO bare VALUES (?, ?, ?, ?)", rows)
            db.execute("COMMIT")
        return time.perf_counter() - begun
    import psycopg

    with psycopg.connect(url) as server, server.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS bare")
        cursor.execute("CREATE TABLE bare (n int PRIMARY KEY, prompt text, seed bigint, state int)")
        with cursor.copy("COPY bare FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
    return time.perf_counter() - begun


def burst(http: httpx.Client) -> tuple[float, int]:
    """Seconds for a thousand jobs of one image, and how many were not accepted."""

    def one(number: int) -> bool:
        answer = http.post("/v1/jobs", json={"prompts": [f"burst {number}"]})
        return answer.status_code == 202

    begun = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        taken = list(pool.map(one, range(BURST)))
    return time.perf_counter() - begun, taken.count(False)


def measure(name: str, count: int, rounds: int) -> list[Figure]:
    with stacks.stack(name) as servers, servers.farm("emoji-gan", workers=0) as farm:
        pid = farm.pids()["api"]
        http = httpx.Client(base_url=farm.url, timeout=60)
        submit(http, 2000)
        before = resident(pid)
        times, floors = [], []
        for _ in range(rounds):
            times.append(submit(http, count))
            floors.append(bare(servers, count))
        grown = resident(pid, "VmHWM") - before
        seconds, refused = burst(http)
    ratios = list(map(truediv, times, floors))
    aim = 20.0 * count / 1_000_000
    return [
        Figure.of_rounds(f"{name}: {count:,} prompts durable and queued", times, "s", aim, "lower"),
        Figure.of_rounds(f"{name}: bare insert of a row an image", floors, "s"),
        Figure.of_rounds(f"{name}: ratio to the bare insert", ratios, "ratio", 2.0, "lower"),
        Figure(f"{name}: growth of the API's memory", grown, "MB", 100.0, "lower"),
        Figure(f"{name}: {BURST:,} jobs of one image", BURST / seconds, "jobs/s"),
        Figure(f"{name}: of them refused", refused, "jobs", 0.0, "lower"),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args(arguments)
    count, rounds = (100_000, 1) if given.quick else (1_000_000, 3)
    print(f"ingest: {count:,} prompts in one streamed body")
    figures = [figure for name in stacks.NAMES for figure in measure(name, count, rounds)]
    show("ingest", figures, **stacks.DURABLE, prompts=count, rounds=rounds)


if __name__ == "__main__":
    main()
