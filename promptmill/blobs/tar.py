"""Tar parts: many small pictures in one object, uncompressed, as WebDataset samples. The
same samples give the same bytes. Knows no store."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from promptmill.jobs import Item

BLOCK = tarfile.BLOCKSIZE
CONTENT_TYPE = "application/x-tar"


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture for a part. `index` is its key, as nine digits; `extension` that of its
    format (png, webp, jpg); `info` as `describe` makes it."""

    index: int
    image: bytes
    extension: str
    text: str
    info: Mapping[str, Any]


def describe(
    item: Item, *, model: str, fingerprint: str, sha256: str, score: float | None
) -> dict[str, Any]:
    """A sample's JSON: one schema for every sample, never a null (readers infer types from
    the first few): "" and -1.0 stand for what there is not."""
    return {
        "key": f"{item.index:09d}",
        "prompt": item.prompt,
        "negative_prompt": item.negative_prompt,
        "seed": item.seed,
        "width": item.width,
        "height": item.height,
        "steps": item.steps,
        "guidance": float(item.guidance),
        "task": item.task,
        "model": model,
        "fingerprint": fingerprint,
        "sha256": sha256,
        "score": -1.0 if score is None else float(score),
        "row": item.row,
        "sample": item.sample,
        "custom_id": item.custom_id or "",
    }


def pack(samples: Sequence[Sample]) -> tuple[bytes, list[tuple[int, int]]]:
    """The part, and each picture's (offset, length) in it, in order. Members of a sample
    stand together, sorted by extension; headers hold no time and no owner."""
    part = bytearray()
    places = []
    for sample in samples:
        members = {
            sample.extension: sample.image,
            "txt": sample.text.encode(),
            "json": json.dumps(sample.info, ensure_ascii=False, sort_keys=True).encode(),
        }
        for extension in sorted(members):
            data = members[extension]
            part += _header(f"{sample.index:09d}.{extension}", len(data))
            if extension == sample.extension:
                places.append((len(part), len(data)))
            part += data
            part += bytes(-len(data) % BLOCK)
    part += bytes(2 * BLOCK)
    return bytes(part), places


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o444
    return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
