"""Objects: finished pictures, tar parts, source images. `BlobStore` is the port; a folder
and S3 are its adapters and pass one contract suite."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Stored:
    """An object that is there. `created`: by this call (else it was adopted).
    `sha256`: hex of its bytes; `metadata`: short ASCII strings."""

    key: str
    size: int
    sha256: str
    created: bool = False
    modified: float = 0.0
    metadata: Mapping[str, str] = field(default_factory=dict)


class BlobStore(Protocol):
    def create(
        self, key: str, data: bytes, *, content_type: str, metadata: Mapping[str, str]
    ) -> Stored:
        """Creates the object, durably, or leaves what is there: then `created` is False
        and size, sha256 and metadata are those of what is there. Never overwrites. An
        ambiguous failure is settled by asking. Raises `errors.StorageDown`."""
        ...

    def head(self, key: str) -> Stored | None: ...

    def read(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """Raises `errors.NotFound`, `errors.StorageDown`."""
        ...

    def stream(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]: ...

    def list(self, prefix: str) -> Iterator[Stored]:
        """All objects whose key starts with `prefix`, any order; sha256 and metadata may
        be empty."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes those that exist."""
        ...

    def url(self, key: str, *, expires: float, filename: str | None = None) -> str | None:
        """A link that opens without credentials for `expires` seconds, or None where the
        store has none (a folder: the API's content route serves it)."""
        ...

    def probe(self) -> None:
        """Raises `errors.StorageDown` naming the setting and the remedy unless the store
        can be written and read."""
        ...
