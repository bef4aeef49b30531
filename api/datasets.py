"""Exports as the API shows them, and all files of one as a single tar. Knows no request."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from api import schemas
from api.farm import Farm
from promptmill import exports, records
from promptmill.blobs import tar
from promptmill.exports import Export, Format, Shard
from promptmill.store import exports as stored

PAGE = 100
MEDIA_TYPES = {
    "tar": tar.CONTENT_TYPE,
    "parquet": "application/vnd.apache.parquet",
    "json": "application/json",
    "jsonl": "application/x-ndjson",
    "md": "text/markdown; charset=utf-8",
    "png": "image/png",
}


def shown(farm: Farm, export: Export, job: records.Job, base: str) -> schemas.Export:
    """base: of the URL, with a slash at its end."""
    progress = stored.progress(farm.db, export.id)
    return schemas.Export(
        id=export.public_id,
        job_id=job.public_id,
        format=export.format.value,
        state=export.state.value,
        shard_images=export.shard_images,
        planned=export.planned,
        total=job.counts.total,
        shards=progress.planned,
        sealed=progress.sealed,
        images=progress.images,
        failed=progress.failed,
        bytes=progress.bytes,
        error=export.error,
        created_at=export.created_at,
        finished_at=export.finished_at,
        archive_url=f"{base}v1/exports/{export.public_id}/archive",
    )


def shard_of(shard: Shard, url: Callable[[exports.File], str]) -> schemas.ExportShard:
    return schemas.ExportShard(
        id=str(shard.number),
        kind=shard.kind.value,
        first=shard.first,
        end=shard.end,
        images=int(shard.summary.get("successes", 0)),
        failed=int(shard.summary.get("failed", 0)),
        sealed_at=shard.sealed_at,
        files=[
            schemas.ExportFile(name=f.name, bytes=f.bytes, sha256=f.sha256, url=url(f))
            for f in shard.files
        ],
    )


def archive(farm: Farm, export: Export) -> Iterator[bytes]:
    """Every sealed file, the card first, as a tar that unpacks to the dataset: a shard of
    an imagefolder is a tar itself, and its members stand among the others."""
    for shard in _sealed(farm, export):
        for file in shard.files:
            pieces = farm.blobs.stream(file.key)
            if export.format is Format.IMAGEFOLDER and file.name.endswith(".tar"):
                yield from _without_end(pieces, file.bytes)
            else:
                yield tar.head(file.name, file.bytes)
                yield from pieces
                yield bytes(-file.bytes % tar.BLOCK)
    yield tar.END


def _without_end(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    left = size - len(tar.END)
    for piece in pieces:
        yield piece[:left]
        left -= min(left, len(piece))


def _sealed(farm: Farm, export: Export) -> Iterator[Shard]:
    yield from stored.sealed(farm.db, export.id, after=None, limit=1, cards=True)[0]
    for page in stored.walk(farm.db, export.id, limit=PAGE):
        yield from page
