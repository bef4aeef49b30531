"""The request hash: SHA-256 over the canonical head and the rows as canonical JSON. Equal
for equal submissions, however the body was cut into chunks or compressed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from api.submissions.chunks import Progress
from api.submissions.readers import Row
from promptmill import errors

_BATCH = 256  # rows serialised at once; without effect on the hash


class Digest:
    """Rows pass through `watch`; then `hexdigest` tells the hash."""

    def __init__(self, canonical: bytes, progress: Progress) -> None:
        self._hash = hashlib.sha256(canonical)
        self._progress = progress
        self._held: list[dict[str, Any]] = []

    def watch(self, rows: Iterable[Row]) -> Iterator[Row]:
        held = self._held
        for row in rows:
            held.append(row[1])
            yield row
            if len(held) >= _BATCH:
                self._flush()

    def _flush(self) -> None:
        try:
            text = orjson.dumps(self._held, option=orjson.OPT_SORT_KEYS)
        except TypeError as error:
            raise errors.BadRow(f"a row cannot be kept as JSON: {error}", param="line") from error
        self._hash.update(text[1:-1] + b",")
        self._held.clear()
        self._progress.touch()

    def hexdigest(self) -> str:
        if self._held:
            self._flush()
        return self._hash.hexdigest()
