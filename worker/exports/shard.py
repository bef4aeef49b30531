"""One shard from rows and objects to files: the pictures in their format, the failed rows
apart, and last, as the mark that it is whole, its statistics."""

from __future__ import annotations

import hashlib
import json
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from promptmill import exports, failpoints, jobs, records
from promptmill.blobs import gather, tar
from promptmill.exports import Column, File, Kind
from promptmill.store import images
from worker.exports import formats
from worker.exports.task import Task

PAGE: Final = 500  # images looked up at once
TEXTS: Final = 200  # different error messages that statistics tell
SIGNATURE: Final = struct.Struct("<Q16s16s")  # index, hash of the request, of the bytes


@dataclass(slots=True)
class Tally:
    """What the statistics of a shard tell."""

    done: int = 0
    bytes: int = 0
    missing: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    fingerprints: Counter[str] = field(default_factory=Counter)
    characters: int = 0
    longest: int = 0
    start: float | None = None
    end: float | None = None

    def take(self, image: records.Image, text: str) -> None:
        self.done += 1
        self.bytes += image.bytes
        self.statuses["success"] += 1
        self.sizes[image.item.size] += 1
        self.fingerprints[image.fingerprint or ""] += 1
        self.characters += len(text)
        self.longest = max(self.longest, len(text))
        ended = image.finished_at or 0.0
        began = ended - (image.render_ms or 0.0) / 1000
        self.start = began if self.start is None else min(self.start, began)
        self.end = ended if self.end is None else max(self.end, ended)

    def refuse(self, code: str, message: str) -> None:
        self.codes[code] += 1
        known = message in self.statuses or len(self.statuses) < TEXTS
        self.statuses[message if known else code] += 1


class Build:
    """Makes one shard."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._columns: tuple[Column, ...] = task.place.export.columns or ()
        self._tally = Tally()
        self._failures: list[str] = []
        self._signatures = bytearray()

    def run(self) -> tuple[list[File], dict[str, Any]]:
        """(files, statistics). Raises `errors.Unavailable`, `Interrupted`."""
        job, export, shard = self._task.place.job, self._task.place.export, self._task.shard
        extension = job.output.extension()
        writer = formats.writer(export.format, self._columns, extension=extension, shard=shard.name)
        for image, data in gather.pictures(self._task.place.blobs, self._images()):
            if data is None or hashlib.sha256(data).digest() != image.sha256:
                self._lost(image, "missing" if data is None else "damaged")
            else:
                writer.add(self._sample(image, data))
        return self._put(writer)

    def _put(self, writer: formats.Writer) -> tuple[list[File], dict[str, Any]]:
        place, shard = self._task.place, self._task.shard
        files = []
        if self._tally.done:
            files.append(place.put(exports.data_name(shard, place.export.format), writer.close()))
            failpoints.reach("export.data")
            place.put(f"signatures/{shard.name}.bin", bytes(self._signatures))
        if self._failures:
            lines = "".join(self._failures).encode()
            files.append(place.put(exports.failures_name(shard), lines))
        self._task.step()
        failpoints.reach("export.put")
        stats = self._stats(files)
        mark, ours = place.offer(exports.stats_name(shard), _pretty(stats))
        if not ours:
            stats = json.loads(place.blobs.read(mark.key))
        failpoints.reach("export.marked")
        return [*files, mark], {name: value for name, value in stats.items() if name != "files"}

    def _images(self) -> Iterator[records.Image]:
        """The done images; the failed ones go into their list on the way."""
        shard, job = self._task.shard, self._task.place.job
        for first in range(shard.first, shard.end, PAGE):
            limit = min(PAGE, shard.end - first)
            found, _ = images.page(
                self._task.db, job, after=first - 1, limit=limit, cache=self._task.cache
            )
            for image in found:
                if image.generation is None or not shard.low < image.generation <= shard.high:
                    continue
                if image.state is jobs.ImageState.FAILED:
                    self._failed(image)
                else:
                    yield image
            self._task.step()

    def _sample(self, image: records.Image, data: bytes) -> formats.Sample:
        text = image.expanded_prompt or image.item.prompt
        self._tally.take(image, text)
        sha256 = (image.sha256 or b"")[:16]
        self._signatures += SIGNATURE.pack(image.item.index, _request(image), sha256)
        return formats.Sample(image.item.index, data, text, self._info(image))

    def _info(self, image: records.Image) -> dict[str, Any]:
        described = tar.describe(
            image.item,
            model=self._task.place.job.model,
            fingerprint=image.fingerprint or "",
            sha256=image.sha256.hex() if image.sha256 else "",
            score=image.score,
        )
        if image.seed is not None:
            described["seed"] = image.seed
        return described | exports.values(self._columns, image.item.metadata)

    def _failed(self, image: records.Image) -> None:
        code, message = image.error_code or "unknown", image.error_text or ""
        self._tally.refuse(code, message or code)
        self._list(image, code, message)

    def _lost(self, image: records.Image, how: str) -> None:
        """Done, and not what was put: `verify --repair` finds such images."""
        message = f"the stored picture is {how}"
        self._tally.missing += 1
        self._tally.refuse(how, message)
        self._list(image, how, message)

    def _list(self, image: records.Image, code: str, message: str) -> None:
        row = self._info(image) | {"error_code": code, "error_message": message}
        self._failures.append(json.dumps(row, ensure_ascii=False) + "\n")

    def _stats(self, files: list[File]) -> dict[str, Any]:
        """In the terms of img2dataset, whose readers then know what to do with it; the times
        are those of rendering, so that building again gives the same."""
        tally, shard = self._tally, self._task.shard
        failed = sum(tally.codes.values())
        return {
            "shard": shard.number,
            "addendum": shard.kind is Kind.ADDENDUM,
            "first": shard.first,
            "end": shard.end,
            "count": tally.done + failed,
            "successes": tally.done,
            "failed": failed,
            "failed_to_generate": failed - tally.missing,
            "failed_to_read": tally.missing,
            "duration": round((tally.end or 0.0) - (tally.start or 0.0), 3),
            "start_time": tally.start or 0.0,
            "end_time": tally.end or 0.0,
            "status_dict": dict(sorted(tally.statuses.items())),
            "error_codes": dict(sorted(tally.codes.items())),
            "image_bytes": tally.bytes,
            "sizes": dict(sorted(tally.sizes.items())),
            "fingerprints": dict(sorted(tally.fingerprints.items())),
            "caption_characters": tally.characters,
            "longest_caption": tally.longest,
            "files": [{"name": f.name, "bytes": f.bytes, "sha256": f.sha256} for f in files],
        }


def _request(image: records.Image) -> bytes:
    """Equal for images of equal prompt and seed, and of the other parameters that decide."""
    item = image.item
    asked = (
        *(item.prompt, item.negative_prompt, image.seed, item.size, item.steps, item.guidance),
        *(item.task, item.source, item.mask, item.strength, item.lora, item.expand),
    )
    return hashlib.sha256(repr(asked).encode()).digest()[:16]


def _pretty(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=4).encode() + b"\n"
