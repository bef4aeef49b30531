"""What a builder is to make, a shard or the card, with what, and where its files go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from promptmill import keys, records
from promptmill.blobs import BlobStore, New, tar
from promptmill.exports import Export, File, Shard
from promptmill.store import images
from promptmill.store.database import Database

_CONTENT_TYPES: Final = {
    "tar": tar.CONTENT_TYPE,
    "parquet": "application/vnd.apache.parquet",
    "json": "application/json",
    "jsonl": "application/x-ndjson",
    "bin": "application/octet-stream",
    "md": "text/markdown; charset=utf-8",
    "png": "image/png",
}


class Interrupted(Exception):
    """The claim is lost, or the worker stops."""


@dataclass(slots=True)
class Place:
    """Where the files of an export go. An object that is there is the work of another builder
    of the same shard, from the same rows: it is adopted, and counts as it is."""

    blobs: BlobStore
    export: Export
    job: records.Job

    def put(self, name: str, data: bytes) -> File:
        return self.offer(name, data)[0]

    def offer(self, name: str, data: bytes) -> tuple[File, bool]:
        """The file that is there now, and whether these bytes are the ones."""
        key = keys.export_file(
            self.job.output, self.job.public_id, self.export.public_id, name=name
        )
        kind = _CONTENT_TYPES[name.rpartition(".")[2]]
        [stored] = self.blobs.create_many([New(key, data, kind)])
        return File(name, stored.key, stored.size, stored.sha256), stored.created


@dataclass(frozen=True, slots=True)
class Task:
    """step: called after every few images; it may raise `Interrupted`."""

    db: Database
    place: Place
    shard: Shard
    cache: images.SegmentCache
    step: Callable[[], None]
