"""Which images of an export are the same: by their bytes, and by what was asked for. Works
on the signatures that builders leave beside the shards, a share of all hashes at a time, so
that memory does not grow with the number of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy

AT_ONCE: Final = 1_000_000  # signatures in memory
EXAMPLES: Final = 100  # groups of which the report names the images
NAMED: Final = 20  # images named of a group
_SIGNATURE: Final = numpy.dtype([("index", "<u8"), ("request", "<u8", 2), ("bytes", "<u8", 2)])

Signatures = Callable[[], Iterator[bytes]]
"""Goes through all signatures, as `shard.SIGNATURE` packs them, shard by shard."""


@dataclass(slots=True)
class Same:
    """Groups of two and more images that are the same. surplus: images beyond the first of
    each; examples: indexes of the first groups."""

    groups: int = 0
    surplus: int = 0
    examples: list[list[int]] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        return {"groups": self.groups, "surplus": self.surplus, "examples": self.examples}


def find(signatures: Signatures, *, images: int) -> dict[str, Same]:
    """`request`: equal prompt, seed and parameters; `bytes`: equal files."""
    shares = -(-images // AT_ONCE) or 1
    return {kind: _find(signatures, kind, shares) for kind in ("request", "bytes")}


def _find(signatures: Signatures, kind: str, shares: int) -> Same:
    same = Same()
    for share in range(shares):
        parts = [_of_share(data, kind, share, shares) for data in signatures()]
        if parts:
            _count(numpy.concatenate(parts), same)
    same.examples = sorted(same.examples)[:EXAMPLES]
    return same


def _of_share(data: bytes, kind: str, share: int, shares: int) -> Any:
    """Rows of (hash, hash, index) whose hashes fall into this share."""
    read = numpy.frombuffer(data, dtype=_SIGNATURE)
    hashes = read[kind]
    mine = hashes[:, 0] % numpy.uint64(shares) == share
    return numpy.column_stack([hashes[mine], read["index"][mine]])


def _count(rows: Any, same: Same) -> None:
    rows = rows[numpy.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]
    if not len(rows):
        return
    changes = numpy.any(rows[1:, :2] != rows[:-1, :2], axis=1)
    starts = numpy.flatnonzero(numpy.concatenate(([True], changes)))
    sizes = numpy.diff(numpy.append(starts, len(rows)))
    several = numpy.flatnonzero(sizes > 1)
    same.groups += len(several)
    same.surplus += int((sizes[several] - 1).sum())
    for at in several[:EXAMPLES]:
        start, size = int(starts[at]), int(sizes[at])
        same.examples.append([int(i) for i in rows[start : start + min(size, NAMED), 2]])
