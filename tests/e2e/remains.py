"""What is left of a text or a picture behind a farm: every table, object, value in Redis and
file is searched, as it is and with each zstd frame in it unpacked. Asks nothing of the code
under test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import zstandard

from tests.e2e.farm import Farm

FRAME = b"\x28\xb5\x2f\xfd"  # how a zstd frame begins
LARGEST = 1 << 26  # bytes of a frame that are unpacked


def unpacked(data: bytes) -> Iterator[bytes]:
    """The data, and what its zstd frames hold as far as each is whole."""
    yield data
    at = data.find(FRAME)
    while at >= 0:
        reader = zstandard.ZstdDecompressor().stream_reader(data[at:])
        held = b""
        try:
            while len(held) < LARGEST and (more := reader.read(1 << 14)):
                held += more
        except zstandard.ZstdError:
            """Cut or overwritten behind what was read, or no frame at all."""
        yield held
        at = data.find(FRAME, at + 1)


def of(farm: Farm, needles: Mapping[str, bytes], *, files: Iterable[Path]) -> set[tuple[str, str]]:
    """(needle, where it lies). files: folders whose every file is searched, with the farm's."""
    found = set()
    for place, data in _everything(farm, [farm.folder, *files]):
        texts = list(unpacked(data))
        found |= {
            (name, place) for name, bytes in needles.items() if any(bytes in t for t in texts)
        }
    return found


def _everything(farm: Farm, folders: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    yield from _tables(farm)
    yield from _objects(farm)
    yield from _redis(farm)
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                yield f"file {path.relative_to(folder)}", _bytes_of(path)


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # a draft or a health note of a running process
        return b""


def _tables(farm: Farm) -> Iterator[tuple[str, bytes]]:
    url = farm.settings.database.replace("postgresql://", "postgresql+psycopg://")
    engine = sa.create_engine(url)
    try:
        for name in sa.inspect(engine).get_table_names():
            for row in farm.query(f'SELECT * FROM "{name}"'):
                for column, value in row.items():
                    yield f"table {name}.{column}", _plain(value)
    finally:
        engine.dispose()


def _plain(value: Any) -> bytes:
    return bytes(value) if isinstance(value, bytes | memoryview) else repr(value).encode()


def _objects(farm: Farm) -> Iterator[tuple[str, bytes]]:
    blobs = farm.blobs()
    for stored in blobs.list(""):
        yield "object", stored.key.encode()
        yield "object", blobs.read(stored.key)


def _redis(farm: Farm) -> Iterator[tuple[str, bytes]]:
    """Values as clients see them: `DUMP` would pack them."""
    redis = farm.redis()
    whole: dict[bytes, tuple[Any, ...]] = {
        b"string": ("GET",),
        b"hash": ("HGETALL",),
        b"list": ("LRANGE", 0, -1),
        b"set": ("SMEMBERS",),
        b"zset": ("ZRANGE", 0, -1),
        b"stream": ("XRANGE", "-", "+"),
    }
    for key in redis.scan_iter("*", count=1000):
        kind = redis.type(key)
        yield "redis", key
        if kind != b"none":  # expired since
            command, *rest = whole[kind]
            yield "redis", _joined(redis.execute_command(command, key, *rest))
    redis.close()


def _joined(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    return b"\0".join(map(_joined, value)) if isinstance(value, Iterable) else repr(value).encode()
