"""The invariants of the design, checked against tables, objects and Redis by statements of
their own: they ask nothing of the code under test. All of them return what is wrong, so
that a story may assert on it and a long run may count it."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import PIL.Image

from promptmill.blobs import BlobStore
from tests.e2e.farm import Farm
from tests.servers import wait_until

DONE, FAILED = 2, 3
SHARDS = 16
KEPT = ("epoch", "caps", "workers", "alive", "tomb:")  # what Redis holds beside jobs
_ROWS = (
    'SELECT "index", state, key, "offset", length, bytes, sha256, error_code, generation'
    ' FROM images WHERE job_id = :job ORDER BY "index"'
)


@dataclass(frozen=True, slots=True)
class Violation:
    """kind: lost · twice · counters · object · shared · failed · orphan · leftover · repairs
    · state · demand. job: its public id, or empty."""

    kind: str
    job: str
    text: str


class Invariants:
    """Of one farm. `of_job` may run while others still render; the rest wants a farm at rest."""

    def __init__(self, farm: Farm) -> None:
        self.farm = farm
        self.blobs: BlobStore = farm.blobs()

    def hold(self, jobs: Collection[str], *, seconds: float = 60) -> None:
        """Asserts all of them for completed jobs of which no image should have failed."""
        found = [v for id in jobs for v in self.of_job(id)]
        assert found == [], found  # not a test module: pytest would not show it
        self.wait_swept(jobs, seconds=seconds)
        self.wait_empty(seconds=seconds)

    def of_job(
        self, id: str, *, state: str = "completed", guilty: Collection[int] = ()
    ) -> list[Violation]:
        """1 and 2: one terminal row an image, counters equal to rows, objects that are what
        their rows say. guilty: indices that ought to fail."""
        [job] = self.farm.query("SELECT * FROM jobs WHERE public_id = :id", id=id)
        rows = self.farm.query(_ROWS, job=job["id"])
        found = [] if job["state"] == state else [Violation("state", id, job["state"])]
        found += self._rows(id, job, rows, guilty=guilty)
        found += self._counters(id, job, rows)
        return found + list(self._objects(id, [r for r in rows if r["state"] == DONE]))

    def of_submissions(self, sent: Mapping[str, int]) -> list[Violation]:
        """Each job that was sent, by public id, is there once with all its images, and no
        other: a submission sent again until it was taken made one job."""
        rows = self.farm.query("SELECT public_id, total FROM jobs WHERE deleted_at IS NULL")
        made = {row["public_id"]: row["total"] for row in rows}
        found = [Violation("twice", id, "nobody sent this job") for id in made.keys() - sent.keys()]
        for id, count in sent.items():
            if made.get(id) != count:
                found.append(Violation("lost", id, f"{made.get(id)} images of {count} are there"))
        return found

    def _rows(
        self,
        id: str,
        job: dict[str, Any],
        rows: Sequence[dict[str, Any]],
        *,
        guilty: Collection[int],
    ) -> Iterator[Violation]:
        times = Counter(row["index"] for row in rows)
        if job["state"] == "completed":
            for index in set(range(job["total"])) - times.keys():
                yield Violation("lost", id, f"image {index} has no row")
        for index, count in times.items():
            if count > 1 or not 0 <= index < job["total"]:
                yield Violation("twice", id, f"image {index} has {count} rows")
        failed = {
            row["index"]: f"{row['error_code']}: {row['error_text']}"
            for row in rows
            if row["state"] == FAILED
        }
        for index in failed.keys() ^ (set(guilty) if job["state"] == "completed" else set()):
            yield Violation("failed", id, f"image {index}: {failed.get(index, 'did not fail')}")

    def _counters(
        self, id: str, job: dict[str, Any], rows: Sequence[dict[str, Any]]
    ) -> Iterator[Violation]:
        [sums] = self.farm.query(
            "SELECT sum(done) AS done, sum(failed) AS failed, sum(bytes) AS bytes, count(*) AS n,"
            " sum(CASE WHEN closed THEN 1 ELSE 0 END) AS closed FROM job_counters WHERE job_id = :j",
            j=job["id"],
        )
        said = (sums["done"], sums["failed"], sums["bytes"])
        states = Counter(row["state"] for row in rows)
        true = (states[DONE], states[FAILED], sum(row["bytes"] for row in rows))
        if said != true:
            yield Violation("counters", id, f"done, failed, bytes: {said}, the rows say {true}")
        if (sums["n"], sums["closed"]) != (SHARDS, SHARDS):
            yield Violation("counters", id, f"{sums['closed']} of {sums['n']} shards are closed")

    def _objects(self, id: str, done: Sequence[dict[str, Any]]) -> Iterator[Violation]:
        places = sorted((r["key"], r["offset"] or 0, r["length"] or r["bytes"]) for r in done)
        for (key, offset, length), (next_key, start, _) in pairwise(places):
            if key == next_key and offset + length > start:
                yield Violation("shared", id, f"two rows share {key} at {start}")
        held: tuple[str, bytes] = ("", b"")
        for row in sorted(done, key=lambda r: (r["key"], r["offset"] or 0)):
            if held[0] != row["key"]:
                held = (row["key"], self._read(row["key"]))
            if trouble := _differs(row, held[1]):
                yield Violation("object", id, f"image {row['index']} ({row['key']}): {trouble}")

    def _read(self, key: str) -> bytes:
        return self.blobs.read(key) if self.blobs.head(key) else b""

    def orphans(self, id: str) -> list[Violation]:
        """2: an object of the job's generations that no row names. Its sources and exports are
        not made by a generation."""
        named = self.farm.query(
            "SELECT DISTINCT key FROM images WHERE key LIKE :prefix", prefix=f"jobs/{id}/%"
        )
        there = {o.key for o in self.blobs.list(f"jobs/{id}/g")} | self._noted(id)
        return [Violation("orphan", id, key) for key in there - {row["key"] for row in named}]

    def _noted(self, id: str) -> set[str]:
        """The keys of which a folder keeps metadata beside the objects."""
        root = Path(self.farm.settings.storage.removeprefix("file://"))
        notes = root / ".meta"
        found = (path for path in (notes / "jobs" / id).glob("g*/**/*") if path.is_file())
        return {path.relative_to(notes).with_suffix("").as_posix() for path in found}

    def leftovers(self) -> list[Violation]:
        """8: when no job is open Redis holds nothing of them."""
        prefix = f"{{{self.farm.settings.model}}}:"
        keys = (k.decode() for k in self.farm.redis().scan_iter(f"{prefix}*", count=1000))
        names = (key.removeprefix(prefix) for key in keys)
        return [Violation("leftover", "", name) for name in names if not name.startswith(KEPT)]

    def repairs(self, *, least: int, most: int) -> list[Violation]:
        """5: repairs made are faults injected."""
        made = self.repaired()
        if least <= made <= most:
            return []
        return [Violation("repairs", "", f"{made} lanes repaired, {least} to {most} were lost")]

    def repaired(self) -> int:
        logs = (p.text() for p in self.farm.processes if p.command == "control")
        return sum(text.count('"audit.repaired"') for text in logs)

    def wait_swept(self, jobs: Collection[str], *, seconds: float = 60) -> None:
        for id in jobs:
            wait_until(partial(self._swept, id), seconds=seconds, what=f"{id} is swept")

    def _swept(self, id: str) -> bool:
        return not self.orphans(id)

    def wait_empty(self, *, seconds: float = 60) -> None:
        wait_until(
            lambda: not self.leftovers(),
            seconds=seconds,
            what=f"Redis holds nothing of closed jobs: {self.leftovers()[:5]}",
        )


def _differs(row: dict[str, Any], data: bytes) -> str:
    """What is wrong with the bytes behind a row; empty when nothing is."""
    if row["length"] is not None:
        data = data[row["offset"] : row["offset"] + row["length"]]
    if len(data) != row["bytes"]:
        return f"{len(data)} bytes, {row['bytes']} by its row"
    if hashlib.sha256(data).digest() != bytes(row["sha256"]):
        return "another sha256 than its row"
    try:
        PIL.Image.open(io.BytesIO(data)).verify()
    except (OSError, SyntaxError) as error:
        return f"does not decode: {error}"
    return ""
