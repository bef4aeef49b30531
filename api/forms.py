"""Multipart forms read as a stream: the fields are small and kept, the one file is handed on
piece by piece. Knows nothing of what is uploaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from promptmill import errors

MOST_FIELDS = 64
MOST_BYTES = 4096  # of one field


class Form:
    """A form of fields and one file, part `file`. Read `pieces` to its end, then `fields` and
    `filename` are complete. on_field: told each (name, value) as it comes, to refuse early."""

    def __init__(
        self,
        chunks: Iterable[bytes],
        content_type: str,
        *,
        file: str,
        on_field: Callable[[str, str], None],
    ) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise errors.UnsupportedMedia(
                "send multipart/form-data with its boundary, as HTTP clients make it"
            )
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self._chunks = chunks
        self._file = file
        self._on_field = on_field
        self._pieces: list[bytes] = []
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._disposition = b""
        self._name = ""
        self._value: bytearray | None = None  # None: the file
        self._over = False
        try:
            self._parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": self._part_begin,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._part_data,
                    "on_part_end": self._part_end,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise errors.BadRequest(f"the form is damaged: {error}"[:200]) from error

    def pieces(self) -> Iterator[bytes]:
        """The bytes of the file. Raises `errors.BadRequest` naming the field."""
        try:
            for chunk in self._chunks:
                self._parser.write(chunk)
                yield from self._pieces
                self._pieces.clear()
        except FormParserError as error:
            raise errors.BadRequest(f"the form is damaged: {error}"[:200]) from error
        if not self._over:
            raise errors.BadRequest("the form ends early: its last boundary is missing")
        if self.filename is None:
            raise errors.BadRequest(f"the form has no {self._file}", param=self._file)

    def _part_begin(self) -> None:
        self._disposition = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _header_end(self) -> None:
        name, value = self._header
        if bytes(name).lower() == b"content-disposition":
            self._disposition = bytes(value)
        name.clear()
        value.clear()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name == self._file:
            if self.filename is not None:
                raise errors.BadRequest(f"{self._file} is given twice", param=self._file)
            self.filename = options.get(b"filename", b"").decode("utf-8", "replace")
            self._value = None
            return
        if self._name in self.fields:
            raise errors.BadRequest(f"{self._name[:100]} is given twice", param=self._name[:100])
        if len(self.fields) == MOST_FIELDS:
            raise errors.BadRequest(f"a form has at most {MOST_FIELDS} fields")
        self._value = bytearray()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._value is None:
            self._pieces.append(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > MOST_BYTES:
            raise errors.BadRequest(
                f"{self._name[:100]} has more than {MOST_BYTES} bytes", param=self._name[:100]
            )

    def _part_end(self) -> None:
        if self._value is None:
            return
        try:
            value = self._value.decode()
        except UnicodeDecodeError:
            raise errors.BadRequest(
                f"{self._name[:100]} is not UTF-8", param=self._name[:100]
            ) from None
        self.fields[self._name] = value
        self._on_field(self._name, value)

    def _end(self) -> None:
        self._over = True
