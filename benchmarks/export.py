"""A job of many small finished images becomes a dataset and is downloaded as one tar: images
per second, and the memory of worker, control and API, which must not grow with the number of
images. A job of a quarter of the size goes first, with shards as large. (A hundred thousand
images fill every cache; what fewer cost a process is no growth.)"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from benchmarks import big, stacks
from benchmarks.ingest import resident
from benchmarks.report import Figure, show
from promptmill import blobs, exports
from promptmill.client import Client
from promptmill.client.exports import Export
from promptmill.local import Farm
from promptmill.models import Model
from promptmill.store import control, models, tenants
from promptmill.store.database import Database
from worker.generators.stub import Stub

IMAGES, QUICK = 400_000, 20_000
PART = 4  # the small job is this part of the large one
SHARDS = 5  # of the small job at least: the first of a process is not the dearest
LOOK = 0.25  # seconds between two looks
SWEPT = 60.0  # seconds in which control may look at the finished jobs before all begins
RATE = 1_000_000 / 900  # images a second: a million in a quarter of an hour
AIM = 16.0  # MB that the usual memory may grow
PEAK = 48.0  # and the highest: a shard more, as the moment falls


@dataclass
class Memory:
    """MB of each process of a farm, looked at now and then."""

    pids: dict[str, int]
    seen: dict[str, list[float]] = field(default_factory=dict)

    def look(self) -> None:
        for name, pid in self.pids.items():
            self.seen.setdefault(name, []).append(resident(pid))

    def usual(self, name: str) -> float:
        return statistics.median(self.seen[name])

    def drift(self, name: str) -> float:
        """From the first half of the looks to the second."""
        looks, half = self.seen[name], len(self.seen[name]) // 2
        return statistics.median(looks[half:]) - statistics.median(looks[:half] or looks)

    def peak(self, name: str) -> float:
        return max(self.seen[name])


def prepare(db: Database, farm: Farm, sizes: Sequence[int]) -> list[str]:
    """Jobs of so many images, completed an hour ago; their public ids."""
    store = blobs.open_store(farm.settings)
    try:
        db.migrate()
        tenants.ensure_default(db)
        models.add(db, Model("stub", Stub.caps, fingerprint=""))
        made = [big.rendered(db, store, "stub", total=total) for total in sizes]
        control.finish_ready(db)
        big.aged(db, made, seconds=3600.0)
    finally:
        store.close()
    return [job.public_id for job in made]


def swept(db: Database) -> None:
    """Until control has gone through the objects of the jobs, which is no part of an export."""
    deadline = time.monotonic() + SWEPT
    while control.sweepable(db, settled=0.0) and time.monotonic() < deadline:
        time.sleep(LOOK)


def build(client: Client, job: str, memory: Memory, *, format: str, shard: int) -> Export:
    """The finished export of a job."""
    export = client.job(job).export(None, format, shard_images=shard)
    assert isinstance(export, Export)
    while export.refresh().state == "building":
        memory.look()
        time.sleep(LOOK)
    if export.state != "completed":
        raise SystemExit(f"the export failed: {export.data['error']}")
    return export


def download(export: Export, memory: Memory) -> float:
    """MB per second of the whole export as one tar; nothing is kept."""
    begun, got, looked = time.perf_counter(), 0, 0.0
    with httpx.stream("GET", str(export.data["archive_url"]), timeout=60) as answer:
        answer.raise_for_status()
        for piece in answer.iter_raw():
            got += len(piece)
            if time.monotonic() - looked > LOOK:
                looked = time.monotonic()
                memory.look()
    if export.format != "imagefolder" and got < int(export.data["bytes"]):
        raise SystemExit(f"{got} bytes came of {export.data['bytes']}")
    return got / 1e6 / (time.perf_counter() - begun)


def measure(name: str, total: int, format: str) -> list[Figure]:
    sizes = (total // PART, total)
    shard = min(exports.SHARD_IMAGES, max(1, sizes[0] // SHARDS))
    memories: list[Memory] = []
    with stacks.stack(name) as servers:
        farm = servers.farm("stub")
        begun = time.perf_counter()
        os.environ.update({k: v for k, v in servers.environ.items() if k.startswith("AWS_")})
        db = Database(farm.settings.database)
        ids = prepare(db, farm, sizes)
        print(f"{name}: jobs of {sizes} images made in {time.perf_counter() - begun:.0f} s")
        with farm, Client(farm.url) as client:
            swept(db)
            db.close()
            for id, size in zip(ids, sizes, strict=True):
                memories.append(Memory(farm.pids()))
                begun = time.perf_counter()
                export = build(client, id, memories[-1], format=format, shard=shard)
                took = time.perf_counter() - begun
                rate = download(export, memories[-1])
                if export.data["images"] != size:
                    raise SystemExit(f"{export.data['images']} images of {size} were exported")
                print(f"{name}: {size:,} images in {took:.1f} s, then {rate:.0f} MB/s")
            if memories[0].pids != memories[1].pids:
                raise SystemExit("a process of the farm was restarted")
    return [
        Figure(f"{name}: {total:,} images as {format}", total / took, "images/s", RATE),
        Figure(f"{name}: all of it downloaded", rate, "MB/s"),
        *_growth(name, sizes, memories),
    ]


def _growth(name: str, sizes: Sequence[int], memories: Sequence[Memory]) -> list[Figure]:
    small, large = memories
    figures = []
    for who in ("worker-1", "control", "api"):
        usual, peak = (Memory.usual, Memory.peak)
        grew, higher = (f(large, who) - f(small, who) for f in (usual, peak))
        figures += [
            Figure(f"{name}: {who}, {sizes[0]:,} images, usually", small.usual(who), "MB"),
            Figure(f"{name}: {who}, {sizes[0]:,} images, at most", small.peak(who), "MB"),
            Figure(f"{name}: {who} grew until {sizes[1]:,}, usually", grew, "MB", AIM, "lower"),
            Figure(f"{name}: {who}, from its first half on", large.drift(who), "MB", AIM, "lower"),
            Figure(f"{name}: {who} grew until {sizes[1]:,}, at most", higher, "MB", PEAK, "lower"),
        ]
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--images", type=int, metavar="N", help="of the large job")
    parser.add_argument("--only", metavar="STACK", choices=stacks.NAMES)
    parser.add_argument("--format", choices=list(exports.Format), default="webdataset")
    given = parser.parse_args(arguments)
    total = given.images or (QUICK if given.quick else IMAGES)
    print(f"export of {total:,} images as {given.format}, after one of a quarter of them")
    names = [given.only] if given.only else stacks.NAMES
    figures = [figure for name in names for figure in measure(name, total, given.format)]
    show("export", figures, **stacks.DURABLE, images=total, format=given.format)


if __name__ == "__main__":
    main()
