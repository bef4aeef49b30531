"""Reads the tar of many pictures as it arrives, holding one picture at a time. Knows no
endpoint and no folder."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

import httpx

from promptmill import errors

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(_BLOCK)


class Archive:
    """An answer of the archive route. last: the index that it goes up to, None when it is
    of no image."""

    def __init__(self, response: httpx.Response) -> None:
        last = response.headers.get("x-last-index", "")
        self.last = int(last) if last.isdigit() else None
        self._pieces = response.iter_bytes()
        self._held = bytearray()

    def pictures(self) -> Iterator[tuple[int, bytes]]:
        """(index, bytes) of each, in index order. Raises `errors.Unavailable` when it ends
        before its end."""
        while (block := self._take(_BLOCK)) != _END:
            try:
                member = tarfile.TarInfo.frombuf(block, "ascii", "strict")
                index = int(member.name.partition(".")[0])
            except (tarfile.HeaderError, ValueError) as exc:
                raise errors.Unavailable("the farm sent an archive that is none") from exc
            yield index, self._take(member.size)
            self._take(-member.size % _BLOCK)
        for _ in self._pieces:
            """To the end: the connection can then serve again."""

    def _take(self, size: int) -> bytes:
        while len(self._held) < size:
            piece = next(self._pieces, None)
            if piece is None:
                raise errors.Unavailable("the farm ended an archive in its midst")
            self._held += piece
        with memoryview(self._held) as view:
            data = bytes(view[:size])
        del self._held[:size]
        return data
