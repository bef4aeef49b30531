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
        "source": item.source or "",
        "mask": item.mask or "",
        "strength": float(item.strength) if item.source else -1.0,
        "lora": item.lora,
        "model": model,
        "fingerprint": fingerprint,
        "sha256": sha256,
        "score": -1.0 if score is None else float(score),
        "below_min_score": bool(item.below(score)),
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
    files: list[bytes] = []
    places, at = [], 0
    for sample in samples:
        for name, data in members(sample):
            if name.endswith(f".{sample.extension}"):
                places.append((at + BLOCK, len(data)))
            files.append(member(name, data))
            at += len(files[-1])
    return b"".join([*files, END]), places


def member(name: str, data: bytes) -> bytes:
    """A file in a tar."""
    return b"".join((head(name, len(data)), data, bytes(-len(data) % BLOCK)))


def head(name: str, size: int) -> bytes:
    """What stands before a file of `size` bytes: no time and no owner. Names of up to 100
    bytes."""
    named = name.encode()
    if len(named) > NAME or size >= LARGE:
        return _usual(name, size)
    digits = b"%011o" % size
    made = bytearray(_PLAIN)
    made[: len(named)] = named
    made[SIZE : SIZE + len(digits)] = digits
    made[SUM : SUM + 6] = b"%06o" % (_PLAIN_SUM + sum(named) + sum(digits))
    return bytes(made)


def _usual(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o444
    return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")


# A head is the one of an empty file without a name but for three fields: to fill them in takes a
# tenth of the time.
NAME, LARGE = 100, 8**11  # bytes of a name, and of a file, that the fields hold
SIZE, SUM = 124, 148  # where these fields begin
_PLAIN = _usual("", 0)
_PLAIN_SUM = int(_PLAIN[SUM : SUM + 6], 8) - sum(_PLAIN[SIZE : SIZE + 11])
