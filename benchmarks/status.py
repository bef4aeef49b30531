"""Asking how a job stands: requests per second of `GET /v1/jobs/{id}` beside a bare FastAPI
route that answers the same bytes, for a job of a thousand images and one of ten million of
which half are done; deep pages of its images beside the first."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import truediv

import httpx
import orjson
from sqlalchemy import text

from api import looks
from benchmarks import big, load, stacks
from benchmarks.report import Figure, show
from promptmill.records import Job
from promptmill.store.database import Database
from tests.servers import free_port

SECONDS = 1.0
LOOKS = 20  # at the database, of each job
MANY = 500  # jobs asked for in turn: none of them was asked for a tenth of a second ago


def serve(port: int, body: bytes) -> None:
    """The bare route, served as the API is."""
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel, create_model

    fields = {name: (type(value) | None, ...) for name, value in orjson.loads(body).items()}
    shape: type[BaseModel] = create_model("Job", **fields)  # type: ignore[call-overload]
    told = shape.model_validate_json(body)
    app = FastAPI()

    @app.get("/job", response_model=shape)
    def job() -> BaseModel:
        return told

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


@contextmanager
def bare(body: bytes) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.status", "--serve", str(port), body.decode()]
    process = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}/job"
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                httpx.get(url)
                break
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.wait()


def rate(*urls: str) -> float:
    return len(load.get(*urls, seconds=SECONDS)) / SECONDS


def pages(url: str, *, total: int, done: int) -> tuple[float, float]:
    """Median milliseconds of the first page of a hundred images, and of deep ones."""

    def took(after: int | None) -> float:
        times = []
        for _ in range(9):
            params = {"limit": 100} | ({} if after is None else {"after": after})
            begun = time.perf_counter()
            httpx.get(f"{url}/images", params=params).raise_for_status()
            times.append(time.perf_counter() - begun)
        return statistics.median(times) * 1000

    return took(None), max(took(at) for at in (done // 2, done - 200, total - 200))


def looked_up(*urls: str) -> list[float]:
    """Median milliseconds of one look at the database for each job, in turn, with a pause
    after which none is answered from what was told a moment ago."""
    times: list[list[float]] = [[] for _ in urls]
    with httpx.Client() as http:
        for _ in range(LOOKS):
            time.sleep(1.5 * looks.FRESH)
            for each, url in zip(times, urls, strict=True):
                begun = time.perf_counter()
                http.get(url).raise_for_status()
                each.append(time.perf_counter() - begun)
    return [statistics.median(each) * 1000 for each in times]


def oldest(db: Database, job: Job, url: str) -> float:
    """Seconds from a commit until a caller who asks all the time is told of it: the longest
    of a few."""
    more = text("UPDATE job_counters SET done = done + 1 WHERE job_id = :job AND shard = 0")
    times = []
    with httpx.Client() as http:
        for _ in range(LOOKS):
            known = http.get(url).json()["counts"]["done"]
            db.write(lambda conn: conn.execute(more, {"job": job.id}))
            begun = time.perf_counter()
            while http.get(url).json()["counts"]["done"] == known:
                pass
            times.append(time.perf_counter() - begun)
    return max(times)


def measure(name: str, total: int, rounds: int) -> list[Figure]:
    with stacks.stack(name) as servers, servers.farm("emoji-gan", workers=0) as farm:
        db = Database(farm.settings.database)
        small = big.make(db, "emoji-gan", total=1000, done=500)
        large = big.make(db, "emoji-gan", total=total, done=total // 2)
        others = [big.make(db, "emoji-gan", total=10, done=5) for _ in range(MANY)]
        urls = [f"{farm.url}/v1/jobs/{job.public_id}" for job in (small, large, *others)]
        rates: dict[str, list[float]] = {"bare": [], "small": [], "large": [], "many": []}
        with bare(httpx.get(urls[1]).content) as floor:
            asked = list(zip(rates, [[floor], urls[:1], urls[1:2], urls[2:]], strict=True))
            for number in range(rounds):  # another order in each: what comes first fares better
                for label, some in asked[number % 4 :] + asked[: number % 4]:
                    rates[label].append(rate(*some))
        first, deep = pages(urls[1], total=total, done=total // 2)
        small_look, large_look = looked_up(*urls[:2])
        age = oldest(db, small, urls[0])
        db.close()

    def ratio(over: str, under: str) -> list[float]:
        return list(map(truediv, rates[over], rates[under]))

    def of(text: str, values: list[float], unit: str, aim: float | None = None) -> Figure:
        return Figure.of_rounds(f"{name}: {text}", values, unit, aim)

    return [
        of("bare FastAPI route", rates["bare"], "requests/s"),
        of("status of 1,000 images", rates["small"], "requests/s"),
        of(f"status of {total:,} images", rates["large"], "requests/s"),
        of("status/bare", ratio("large", "bare"), "ratio", 0.5),
        of(f"status of {MANY} jobs in turn, each looked up", rates["many"], "requests/s"),
        of("looked up/bare", ratio("many", "bare"), "ratio"),
        of("large/small", ratio("large", "small"), "ratio", 1.0),
        Figure(f"{name}: a commit is told of, at the latest", age, "s", 0.5, "lower"),
        Figure(f"{name}: one look at the database, 1,000 images", small_look, "ms"),
        Figure(f"{name}: one look at the database, {total:,} images", large_look, "ms"),
        Figure(f"{name}: a look, large/small", large_look / small_look, "ratio", 1.0, "lower"),
        Figure(f"{name}: first page of images", first, "ms"),
        Figure(f"{name}: slowest deep page", deep, "ms"),
        Figure(f"{name}: deep/first", deep / first, "ratio", 2.0, "lower"),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--serve", nargs=2, metavar=("PORT", "BODY"))
    given = parser.parse_args(arguments)
    if given.serve:
        serve(int(given.serve[0]), given.serve[1].encode())
        return
    total, rounds = (100_000, 1) if given.quick else (10_000_000, 12)
    print(f"status of a job of {total:,} images, half of them done; 8 connections")
    figures = [figure for name in stacks.NAMES for figure in measure(name, total, rounds)]
    show("status", figures, **stacks.DURABLE, images=total, rounds=rounds)


if __name__ == "__main__":
    main()
