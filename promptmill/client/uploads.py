"""Local pictures that rows name as `source` or `mask`: each is uploaded once, and the row
names the uploaded file instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from promptmill import errors
from promptmill.client.transport import Transport

FIELDS = ("source", "mask")
_BEGINNINGS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
LONGEST = 500  # characters of a text that may be a path


class Uploads:
    """What one client uploaded. A file that changed is uploaded again."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._known: dict[tuple[str, int, int], str] = {}

    def row(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row, its local pictures uploaded."""
        found = {name: self.reference(row[name]) for name in FIELDS if row.get(name) is not None}
        return {**row, **found} if found else row

    def rows(self, rows: Iterable[Any]) -> list[Any]:
        return [self.row(row) if isinstance(row, Mapping) else row for row in rows]

    def reference(self, value: Any) -> Any:
        """`file_…` for a path, or a text that is one of a file which is here; anything else
        as it is. Raises `errors.BadRequest` for a path that cannot be read."""
        if isinstance(value, list | tuple):
            return [self.reference(one) for one in value]
        if isinstance(value, Path):
            return self._file(value)
        if isinstance(value, str) and _names_file(value):
            return self._file(Path(value))
        return value

    def _file(self, path: Path) -> str:
        try:
            facts = path.stat()
            known = (str(path.resolve()), facts.st_size, facts.st_mtime_ns)
            if known not in self._known:
                self._known[known] = self._send(path.name, _picture(path))
        except OSError as error:
            raise errors.BadRequest(f"cannot read {path}: {error.strerror or error}") from error
        return self._known[known]

    def _send(self, name: str, data: bytes) -> str:
        answer = self._transport.call(
            "POST", "/v1/files", form={"purpose": "vision"}, file=(name, data)
        )
        return str(answer.json()["id"])


def _names_file(text: str) -> bool:
    try:
        return len(text) < LONGEST and Path(text).is_file()
    except OSError:  # longer than a name may be
        return False


def _picture(path: Path) -> bytes:
    """The bytes of a local picture; a file that is none is refused by its name, unsent."""
    data = path.read_bytes()
    if not (data.startswith(_BEGINNINGS) or (data[:4], data[8:12]) == (b"RIFF", b"WEBP")):
        raise errors.BadRequest(f"{path} is no PNG, JPEG or WebP picture")
    return data
