"""Objects: finished pictures, tar parts, source images. `BlobStore` is the port; a folder
and S3 are its adapters, memory its fake, and all pass one contract suite."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from promptmill import errors
from promptmill.settings import Settings

CHUNK = 256 * 1024  # bytes per piece of a stream
_KEY = re.compile(r"[A-Za-z0-9_=+@-][A-Za-z0-9_=+@.-]*(/[A-Za-z0-9_=+@-][A-Za-z0-9_=+@.-]*)*")


@dataclass(frozen=True, slots=True)
class Stored:
    """An object that is there. `key`: as asked for, but what `create_many` makes where a store
    cannot create without overwriting carries a hash of the content: remember this one.
    `created`: by this call (else it was adopted). `sha256`: hex of its bytes; `metadata`: short
    ASCII strings; `modified`: Unix seconds."""

    key: str
    size: int
    sha256: str
    created: bool = False
    modified: float = 0.0
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class New:
    """An object to create."""

    key: str
    data: bytes
    content_type: str
    metadata: Mapping[str, str] = field(default_factory=dict)


class BlobStore(Protocol):
    """Every call may raise `errors.StorageDown`. A key is 1 to 900 characters in
    `/`-separated parts of letters, digits and `_ = + @ . -`, none beginning with a dot,
    and no key is the folder of another; `errors.BadRequest` for any other. Thread-safe."""

    def create(
        self, key: str, data: bytes, *, content_type: str, metadata: Mapping[str, str]
    ) -> Stored:
        """Creates the object, durably, or leaves what is there: then `created` is False
        and size, sha256 and metadata are those of what is there. An ambiguous failure is
        settled by asking. The key is for nobody else's use, or for these very bytes alone:
        the object is under it wherever it is kept."""
        ...

    def create_many(self, objects: Sequence[New]) -> list[Stored]:
        """Creates each, in order, as `create` does but for keys that others may be creating
        with other bytes: never overwrites, see `Stored.key`. At a fraction of the time: a
        folder syncs them together, S3 sends them side by side. When it raises, some may have
        been created: creating them again adopts those."""
        ...

    def create_from(self, key: str, pieces: Iterable[bytes], *, content_type: str) -> Stored:
        """Creates an object of any size from its pieces, in flat memory, under a key that
        nobody else creates. When `pieces` raises, nothing is left."""
        ...

    def head(self, key: str) -> Stored | None: ...

    def read(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """A range past the end is cut short. Raises `errors.NotFound`."""
        ...

    def stream(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """`read` in pieces. `errors.NotFound` comes from the call, before the first piece."""
        ...

    def list(self, prefix: str) -> Iterator[Stored]:
        """All objects whose key starts with `prefix`, and what a writer that died left of one,
        any order; sha256 and metadata may be empty."""
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

    def close(self) -> None: ...


def check_key(key: str) -> str:
    """`key` itself, if it can name an object: it then stays inside any folder."""
    if len(key) > 900 or not _KEY.fullmatch(key):
        raise errors.BadRequest(f"{key[:100]!r} cannot name an object", param="key")
    return key


def open_store(settings: Settings) -> BlobStore:
    """The store that PROMPTMILL_STORAGE_URL names. Touches neither disk nor network:
    `probe` does. Raises `errors.SettingInvalid`."""
    from promptmill.blobs.folder import DirBlobs
    from promptmill.blobs.s3 import S3Blobs

    if not settings.storage_url:
        return DirBlobs(settings.data_dir / "objects")
    url = urlsplit(settings.storage_url)
    if url.scheme == "file":
        if url.netloc not in ("", "localhost") or not re.match("/+[^/]", url.path):
            raise errors.SettingInvalid(
                f"PROMPTMILL_STORAGE_URL={settings.storage_url} must be file:///ABSOLUTE/FOLDER"
            )
        return DirBlobs(Path(unquote(url.path)))
    if not url.netloc:
        raise errors.SettingInvalid(
            f"PROMPTMILL_STORAGE_URL={settings.storage_url} must be s3://BUCKET or s3://BUCKET/PREFIX"
        )
    return S3Blobs(
        url.netloc,
        prefix=url.path.strip("/"),
        endpoint_url=settings.s3_endpoint_url or None,
        public_endpoint_url=settings.s3_public_endpoint_url or None,
    )
