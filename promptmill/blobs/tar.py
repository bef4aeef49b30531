"""Tar parts: many small pictures in one object, uncompressed, as WebDataset samples. The
same samples give the same bytes. Knows no store."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from promptmill.jobs import Item

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
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
        "lora": item.lora,
        "model": model,
        "fingerprint": fingerprint,
        "sha256": sha256,
        "score": -1.0 if score is None else float(score),
        "row": item.row,
        "sample": item.sample,
        "custom_id": item.custom_id or "",
    }


def members(sample: Sample) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of a sample's members, which stand together, sorted by extension."""
    found = {
        sample.extension: sample.image,
        "txt": sample.text.encode(),
        "json": json.dumps(sample.info, ensure_ascii=False, sort_keys=True).encode(),
    }
    return ((f"{sample.index:09d}.{extension}", found[extension]) for extension in sorted(found))


def pack(samples: Sequence[Sample]) -> tuple[bytes, list[tuple[int, int]]]:
    """The part, and each picture's (offset, length) in it, in order."""
    part = bytearray()
    places = []
    for sample in samples:
        for name, data in members(sample):
            if name.endswith(f".{sample.extension}"):
                places.append((len(part) + BLOCK, len(data)))
            part += member(name, data)
    part += END
    return bytes(part), places


def member(name: str, data: bytes) -> bytes:
    """A file in a tar."""
    return b"".join((head(name, len(data)), data, bytes(-len(data) % BLOCK)))


def head(name: str, size: int) -> bytes:
    """What stands before a file of `size` bytes: no time and no owner. Names of up to 100
    bytes."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o444
    return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
