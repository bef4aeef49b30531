"""A store in memory, for tests: the port's contract and nothing else. Set `down` to make
every call fail as an outage would."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from promptmill import errors
from promptmill.blobs import CHUNK, New, Stored, check_key


class MemoryBlobs:
    def __init__(self) -> None:
        self.down = False
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, Stored]] = {}

    def _up(self) -> None:
        if self.down:
            raise errors.StorageDown

    def create(
        self, key: str, data: bytes, *, content_type: str, metadata: Mapping[str, str]
    ) -> Stored:
        self._up()
        made = Stored(
            key=check_key(key),
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            modified=time.time(),
            metadata=dict(metadata),
        )
        with self._lock:
            there = self._objects.setdefault(key, (data, made))[1]
        return replace(there, created=there is made)

    def create_many(self, objects: Sequence[New]) -> list[Stored]:
        return [
            self.create(new.key, new.data, content_type=new.content_type, metadata=new.metadata)
            for new in objects
        ]

    def create_from(self, key: str, pieces: Iterable[bytes], *, content_type: str) -> Stored:
        return self.create(key, b"".join(pieces), content_type=content_type, metadata={})

    def head(self, key: str) -> Stored | None:
        self._up()
        found = self._objects.get(check_key(key))
        return found[1] if found else None

    def read(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        self._up()
        found = self._objects.get(check_key(key))
        if found is None:
            raise errors.NotFound(f"there is no object {key}")
        return found[0][offset:][:length]

    def stream(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        data = self.read(key, offset=offset, length=length)
        return (data[at : at + CHUNK] for at in range(0, len(data), CHUNK))

    def list(self, prefix: str) -> Iterator[Stored]:
        self._up()
        with self._lock:
            found = [stored for key, (_, stored) in self._objects.items() if key.startswith(prefix)]
        return iter(found)

    def delete(self, keys: Iterable[str]) -> None:
        self._up()
        with self._lock:
            for key in keys:
                self._objects.pop(check_key(key), None)

    def url(self, key: str, *, expires: float, filename: str | None = None) -> str | None:
        return None

    def probe(self) -> None:
        self._up()

    def close(self) -> None:
        self._objects.clear()
