"""The last of an export: README.md as a dataset card (provenance, statistics, what readers
of Hugging Face datasets need), the grid of sample pictures, and the report of duplicates."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from promptmill import contact_sheet, exports, records
from promptmill.blobs import gather
from promptmill.exports import ITEM_COLUMNS, Column, Export, File, Format, Shard
from promptmill.store import exports as stored
from promptmill.store import images
from worker.exports import duplicates
from worker.exports.shard import SIGNATURE
from worker.exports.task import Task

SAMPLES: Final = 36
GRID: Final = 12  # pictures in a row
LATEST: Final = 100  # shards read at once
_FILES: Final = {
    Format.WEBDATASET: "data/*.tar",
    Format.IMAGEFOLDER: "data/train-*/*",
    Format.PARQUET: "data/*.parquet",
}
_SIZES: Final = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"),
                 (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"))  # fmt: skip
_README: Final = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: {files}
size_categories:
- {size}
task_categories:
- text-to-image
tags:
- synthetic
- promptmill
---

# {title}

{images} with captions, made by the model `{model}`{lacking}. Format: {format},
{shards}.

![samples](sample.png)

## Provenance

Every image was made by a generative model: `digitalSourceType` is
`trainedAlgorithmicMedia`, in the files' own metadata too. Prompt, seed, size and fingerprint of
each stand beside it; the same fingerprint and row give the same bytes again.

| | |
|---|---|
{provenance}

## Statistics

| | |
|---|---|
{statistics}

## Columns

`image` and `text` (the caption), and:

| column | type |
|---|---|
{columns}

A row that lacks a value has "", -1 or false, never a null. `NNNNN_failures.jsonl` lists the rows
without a picture, `NNNNN_stats.json` is the last file of a shard: one without it is not whole.
"""


class Card:
    """Makes the card of an export."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def run(self) -> tuple[list[File], dict[str, Any]]:
        """(files, nothing that counts). Each card has a folder of its own in the store."""
        shards = list(self._shards())
        total = _Total(shards)
        same = duplicates.find(self._signatures(shards), images=total.images)
        report = {"images": total.images} | {
            "equal_prompt_and_seed": same["request"].report(),
            "equal_bytes": same["bytes"].report(),
        }
        grid = self._grid(shards, total.images)
        readme = _readme(self._task.place.job, self._task.place.export, total, same, len(shards))
        made = {
            "duplicates.json": (json.dumps(report, indent=4) + "\n").encode(),
            "sample.png": grid,
            "README.md": readme.encode(),
        }
        self._task.step()
        folder = f"cards/{-self._task.shard.number:03d}"
        files = [
            (name, self._task.place.put(f"{folder}/{name}", data))
            for name, data in made.items()
            if data
        ]
        return [File(name, f.key, f.bytes, f.sha256) for name, f in files], {}

    def _shards(self) -> Iterator[Shard]:
        for page in stored.walk(self._task.db, self._task.place.export.id, limit=LATEST):
            yield from page
            self._task.step()

    def _signatures(self, shards: Sequence[Shard]) -> Iterator[bytes]:
        for shard in shards:
            if shard.summary.get("successes"):
                self._task.step()
                yield self._of_shard(shard)

    def _of_shard(self, shard: Shard) -> bytes:
        place = self._task.place
        [file] = [file for file in shard.files if file.name.endswith("_stats.json")]
        key = file.key.replace(exports.stats_name(shard), f"signatures/{shard.name}.bin")
        return place.blobs.read(key)

    def _grid(self, shards: Sequence[Shard], images_: int) -> bytes:
        """Pictures from all over the export, in index order; nothing when it has none."""
        chosen = list(self._chosen(shards, images_))
        found = (
            images.get(self._task.db, self._task.place.job, index, cache=self._task.cache)
            for index in sorted(chosen)
        )
        pictures = [
            (data, image.item.prompt)
            for image, data in gather.pictures(self._task.place.blobs, found)
            if data is not None
        ]
        if not pictures:
            return b""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "sample.png"
            contact_sheet.write(pictures, path, columns=GRID)
            return path.read_bytes()

    def _chosen(self, shards: Sequence[Shard], images_: int) -> Iterator[int]:
        wanted = (
            {n * images_ // SAMPLES for n in range(min(SAMPLES, images_))} if images_ else set()
        )
        if images_ <= SAMPLES:
            wanted = set(range(images_))
        first = 0
        for shard in shards:
            count = int(shard.summary.get("successes", 0))
            mine = [number - first for number in wanted if first <= number < first + count]
            if mine:
                data = self._of_shard(shard)
                for number in mine:
                    yield int(SIGNATURE.unpack_from(data, number * SIGNATURE.size)[0])
            first += count


class _Total:
    """The statistics of all shards, added up."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.images = self.failed = self.bytes = self.characters = self.longest = 0
        self.codes: Counter[str] = Counter()
        self.sizes: Counter[str] = Counter()
        self.fingerprints: Counter[str] = Counter()
        self.start: float | None = None
        self.end: float | None = None
        for shard in shards:
            self._add(shard.summary)

    def _add(self, one: Mapping[str, Any]) -> None:
        self.images += one["successes"]
        self.failed += one["failed"]
        self.bytes += one["image_bytes"]
        self.characters += one["caption_characters"]
        self.longest = max(self.longest, one["longest_caption"])
        self.codes.update(one["error_codes"])
        self.sizes.update(one["sizes"])
        self.fingerprints.update(one["fingerprints"])
        if one["successes"]:
            start, end = one["start_time"], one["end_time"]
            self.start = start if self.start is None else min(self.start, start)
            self.end = end if self.end is None else max(self.end, end)


def _readme(
    job: records.Job,
    export: Export,
    total: _Total,
    same: Mapping[str, duplicates.Same],
    shards: int,
) -> str:
    lacking = f"; {_count(total.failed, 'row')} without one" if total.failed else ""
    return _README.format(
        files=_FILES[export.format],
        size=next((name for most, name in _SIZES if total.images < most), "n>10M"),
        title=" ".join(job.name.split()) or job.public_id,
        images=_count(total.images, "image"),
        model=job.model,
        lacking=lacking,
        format=export.format.value,
        shards=_count(shards, "shard"),
        provenance=_table(_provenance(job, export, total)),
        statistics=_table(_statistics(total, same)),
        columns=_table(_columns(export.columns or ())),
    )


def _provenance(job: records.Job, export: Export, total: _Total) -> list[tuple[str, str]]:
    return [
        ("job", f"`{job.public_id}`"),
        ("export", f"`{export.public_id}`"),
        ("model", f"`{job.model}`"),
        *(
            ("fingerprint", f"`{name}` ({_count(count, 'image')})")
            for name, count in sorted(total.fingerprints.items())
        ),
        ("seed of the job", str(job.seed)),
        ("rendered", f"{_moment(total.start)} to {_moment(total.end)}"),
        ("image files", job.output.format),
    ]


def _statistics(total: _Total, same: Mapping[str, duplicates.Same]) -> list[tuple[str, str]]:
    mean = total.characters / total.images if total.images else 0.0
    return [
        ("images", f"{total.images:,}"),
        ("rows without an image", f"{total.failed:,}"),
        *((f"… `{code}`", f"{count:,}") for code, count in sorted(total.codes.items())),
        ("bytes of images", f"{total.bytes:,}"),
        *((f"size {size}", f"{count:,}") for size, count in sorted(total.sizes.items())),
        ("characters of a caption", f"{mean:.1f} on average, {total.longest:,} at most"),
        ("same prompt and seed as another", _count(same["request"].surplus, "image")),
        ("same bytes as another", f"{_count(same['bytes'].surplus, 'image')} (`duplicates.json`)"),
    ]


def _columns(columns: Sequence[Column]) -> list[tuple[str, str]]:
    types = {**ITEM_COLUMNS, **{column.name: column.type for column in columns}}
    return [(f"`{name}`", type) for name, type in types.items()]


def _count(many: int, noun: str) -> str:
    return f"{many:,} {noun}" if many == 1 else f"{many:,} {noun}s"


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"| {_cell(left)} | {_cell(right)} |" for left, right in rows)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _moment(at: float | None) -> str:
    return "-" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
