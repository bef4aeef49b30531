"""Which images of an export are the same: by their bytes, and by what was asked for. Works
on the signatures that builders leave beside the shards: spreads them over files by hash, and
counts one file after the other, so that memory does not grow with the number of images, nor
with how many are the same."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy

AT_ONCE: Final = 100_000  # signatures in memory
FILES: Final = 200  # of each kind at most
EXAMPLES: Final = 100  # groups of which the report names the images
NAMED: Final = 20  # images named of a group
KINDS: Final = ("request", "bytes")
_SIGNATURE: Final = numpy.dtype([("index", "<u8"), ("request", "<u8", 2), ("bytes", "<u8", 2)])
_COLUMNS: Final = 3  # of a row that is counted: hash, hash, and a number

Signatures = Iterable[bytes]
"""All signatures, as `shard.SIGNATURE` packs them, shard by shard."""


@dataclass(slots=True)
class Same:
    """Groups of two and more images that are the same. surplus: images beyond the first of
    each; examples: indexes of some groups, by the first."""

    groups: int = 0
    surplus: int = 0
    examples: list[list[int]] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        return {"groups": self.groups, "surplus": self.surplus, "examples": self.examples}


def find(signatures: Signatures, *, images: int) -> dict[str, Same]:
    """`request`: equal prompt, seed and parameters; `bytes`: equal files. images: about how
    many there are."""
    files = min(FILES, -(-images // AT_ONCE) or 1)
    with tempfile.TemporaryDirectory(prefix="duplicates-") as folder:
        spread = {kind: [Path(folder) / f"{kind}-{n}" for n in range(files)] for kind in KINDS}
        for data in signatures:
            _spread(numpy.frombuffer(data, dtype=_SIGNATURE), spread)
        return {kind: _find(paths) for kind, paths in spread.items()}


def _spread(read: Any, spread: dict[str, list[Path]]) -> None:
    """Appends each signature to the file that its hash belongs to, which keeps their order."""
    for kind, paths in spread.items():
        rows = numpy.column_stack([read[kind], read["index"]])
        share = rows[:, 0] % numpy.uint64(len(paths))
        for number in numpy.unique(share):
            with paths[int(number)].open("ab") as file:
                file.write(rows[share == number].tobytes())


def _find(paths: Iterable[Path]) -> Same:
    same = Same()
    for path in paths:
        if path.exists():
            _count(lambda path=path: _rows(path), same)  # type: ignore[misc]
    same.examples.sort()
    return same


def _rows(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        while data := file.read(AT_ONCE * _COLUMNS * 8):
            yield numpy.frombuffer(data, dtype="<u8").reshape(-1, _COLUMNS)


def _count(read: Callable[[], Iterator[Any]], same: Same) -> None:
    """Over all rows with some hashes: (hash, hash, index)."""
    counted = numpy.empty((0, _COLUMNS), dtype="<u8")
    for rows in read():
        ones = numpy.column_stack([rows[:, :2], numpy.ones(len(rows), dtype="<u8")])
        counted = _merged(numpy.concatenate([counted, ones]))
    several = counted[counted[:, 2] > 1]
    same.groups += len(several)
    same.surplus += int(several[:, 2].sum()) - len(several)
    if wanted := EXAMPLES - len(same.examples):
        same.examples += _indexes(read, several[:wanted, :2])


def _merged(counted: Any) -> Any:
    """(hash, hash, how many): each pair of hashes once."""
    counted = counted[numpy.lexsort((counted[:, 1], counted[:, 0]))]
    changes = numpy.any(counted[1:, :2] != counted[:-1, :2], axis=1)
    starts = numpy.flatnonzero(numpy.concatenate(([True], changes)))
    sums = numpy.add.reduceat(counted[:, 2], starts)
    return numpy.column_stack([counted[starts, :2], sums])


def _indexes(read: Callable[[], Iterator[Any]], groups: Any) -> list[list[int]]:
    """The first indexes of each group of equal hashes."""
    found: list[list[int]] = [[] for _ in groups]
    for rows in read() if len(groups) else ():
        for group, named in zip(groups, found, strict=True):
            if len(named) < NAMED:
                mine = rows[(rows[:, 0] == group[0]) & (rows[:, 1] == group[1]), 2]
                named.extend(map(int, mine[: NAMED - len(named)]))
    return list(map(sorted, found))
