"""The lines of a batch: requests in, results and errors out, in exactly the forms that the
official client's users parse. Knows no HTTP and no connection but those it is given."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from pydantic import ValidationError

from api.openai.batch_shapes import EDITS, BatchEdit
from api.openai.seen import Seen
from api.openai.shapes import MOST_IMAGES, ImageRequest
from api.submissions import chunks, fields
from api.submissions.readers import Row, refuse_nul
from promptmill import errors
from promptmill.models import Model

MOST_PROBLEMS: Final = 100  # told of one file
MOST_REQUESTS: Final = 1_000_000  # in one file
KEYS: Final = frozenset({"custom_id", "method", "url", "body"})
_WATCHED: Final = 500  # lines between two calls of `watch`


class Wrong(Exception):
    """A line that is not a request."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


class Refused(Exception):
    """The file is not a batch: `problems` says why, line by line."""

    def __init__(self, problems: list[dict[str, Any]]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Line:
    """A request of a batch, well-formed."""

    custom_id: str
    asked: ImageRequest

    def row(self, transparent: Callable[[str], bool]) -> dict[str, Any]:
        """As a row of a submission; how its result is wanted goes along as metadata."""
        start = self.asked.start(transparent) if isinstance(self.asked, BatchEdit) else {}
        [row] = self.asked.submission(**start)["items"]
        told = {"metadata": self.asked.metadata, "response_format": self.asked.response_format}
        given = {name: value for name, value in told.items() if value is not None}
        return {**row, "id": self.custom_id, **given}


class Requests:
    """The requests of a file, read once and in flat memory. `open` tells the model and the
    format that all of them share; `rows` then goes through them. Both raise `Refused`, `rows`
    at the end, when it has seen up to `MOST_PROBLEMS` wrong lines. watch: called now and
    then; what it raises ends the reading. transparent: whether the picture behind a reference
    is clear in places; it raises `errors.NotFound` or `errors.BadRow` where there is none."""

    def __init__(
        self,
        data: Iterable[bytes],
        *,
        endpoint: str,
        find_model: Callable[[str], Model],
        default_model: str,
        max_line: int,
        watch: Callable[[], None],
        transparent: Callable[[str], bool],
    ) -> None:
        self.count = 0
        self._transparent = transparent
        self._endpoint = endpoint
        self._find_model = find_model
        self._default_model = default_model
        self._watch = watch
        self._problems: list[dict[str, Any]] = []
        self._model: Model | None = None
        self._format = ""
        self._parsers: Mapping[str, fields.Parse] = {}
        self._seen = Seen()
        self._empty = True
        self._good = self._read(data, max_line)

    def open(self) -> tuple[Model, str]:
        self._first = next(self._good, None)
        if self._first is None or self._model is None:
            raise Refused(self._problems)
        return self._model, self._format

    def rows(self) -> Iterator[Row]:
        if self._first is not None:
            yield self._first
        yield from self._good
        if self._problems:
            raise Refused(self._problems)

    def _read(self, data: Iterable[bytes], max_line: int) -> Iterator[Row]:
        """The rows of all lines, up to the first that is wrong."""
        try:
            for number, line in chunks.lines(data, limit=max_line):
                self._empty = False
                if not line.strip():
                    continue
                self.count += 1
                if self.count % _WATCHED == 0:
                    self._watch()
                if self.count > MOST_REQUESTS:
                    self._note("too_many_tasks", f"more than {MOST_REQUESTS:,} requests", number)
                    return
                row = self._one(number, line)
                if row is not None and not self._problems:
                    yield number, row
                if len(self._problems) == MOST_PROBLEMS:
                    return
        except errors.TooLarge as error:
            self._note("invalid_json_line", error.message, error.line)
        if not self.count:
            code = "empty_file" if self._empty else "empty_batch"
            self._note(code, "the file has no requests", None)

    def _one(self, number: int, line: bytes) -> dict[str, Any] | None:
        try:
            found = parse(line, endpoint=self._endpoint)
            if not self._seen.add(_mark(found.custom_id)):
                told = f"{found.custom_id[:100]!r} is used twice"
                raise Wrong("duplicate_custom_id", told, "custom_id")
            return self._agreed(found)
        except Wrong as wrong:
            self._note(wrong.code, wrong.message, number, wrong.param)
        except errors.Unavailable:
            raise
        except errors.Error as error:
            code = error.code if error.code == "model_not_found" else "invalid_request"
            self._note(code, error.message, number, f"body.{error.param}" if error.param else None)
        return None

    def _agreed(self, line: Line) -> dict[str, Any]:
        """One model and one format for all; fields that this model honours."""
        model, format = line.asked.model or self._default_model, line.asked.output_format or "png"
        if self._model is None:
            self._model, self._format = self._find_model(model), format
            self._parsers = fields.Parsers(self._model, textual=False, max_n=MOST_IMAGES).by_name
        if model != self._model.name:
            raise Wrong(
                "model_mismatch",
                f"all requests of this file are for {self._model.name}",
                "body.model",
            )
        if format != self._format:
            told = f"all images of this file are {self._format}"
            raise Wrong("invalid_request", told, "body.output_format")
        row = line.row(self._clear)
        for name, value in row.items():
            if name in self._parsers:
                self._parsers[name](value)
        return row

    def _clear(self, reference: str) -> bool:
        try:
            return self._transparent(reference)
        except (errors.NotFound, errors.BadRow) as error:
            told = f"{reference[:100]!r}: {error.message}"
            raise Wrong("invalid_request", told, "body.images.0.file_id") from error

    def _note(self, code: str, message: str, line: int | None, param: str | None = None) -> None:
        self._problems.append({"code": code, "message": message, "param": param, "line": line})


def _mark(custom_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(custom_id.encode(), digest_size=8).digest())


def parse(line: bytes, *, endpoint: str) -> Line:
    """Raises `Wrong`, `errors.BadRow`."""
    try:
        given = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Wrong("invalid_json_line", f"not valid JSON: {error.msg}") from error
    if not isinstance(given, dict):
        raise Wrong("invalid_json_line", "a line must be a JSON object")
    if b"\\u0000" in line:
        refuse_nul(given, line=None)
    for name in given:
        if name not in KEYS:
            raise Wrong("invalid_request", f"unknown field {name[:100]!r}", name[:100])
    custom_id = given.get("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= fields.MAX_ID:
        told = f"custom_id must be a string of 1 to {fields.MAX_ID} characters"
        raise Wrong("invalid_request", told, "custom_id")
    if given.get("method") != "POST":
        raise Wrong("invalid_request", 'method must be "POST"', "method")
    if given.get("url") != endpoint:
        raise Wrong("url_mismatch", f"url must be the batch's endpoint, {endpoint}", "url")
    return Line(custom_id, _asked(given.get("body"), endpoint))


def _asked(body: Any, endpoint: str) -> ImageRequest:
    if not isinstance(body, dict):
        raise Wrong("invalid_request", "body must be an object", "body")
    try:
        asked = (BatchEdit if endpoint == EDITS else ImageRequest).model_validate(body)
    except ValidationError as refused:
        fault = refused.errors(include_url=False, include_input=False)[0]
        param = ".".join(["body", *(str(part)[:100] for part in fault["loc"])])
        raise Wrong("invalid_request", f"{param}: {fault['msg']}", param) from None
    if asked.stream:
        raise Wrong("invalid_request", "a request of a batch cannot stream", "body.stream")
    return asked


def result(id: str, custom_id: str | None, *, status: int, body: Mapping[str, Any]) -> bytes:
    """A line of an executed request: of the output file, or, with an error status, of the
    error file."""
    response = {"status_code": status, "request_id": f"req_{id}", "body": body}
    return _line(id, custom_id, response, None)


def not_executed(id: str, custom_id: str | None, *, code: str, message: str) -> bytes:
    """A line of the error file for a request that never ran."""
    return _line(id, custom_id, None, {"code": code, "message": message})


def _line(id: str, custom_id: str | None, response: Any, error: Any) -> bytes:
    told = {
        "id": f"batch_req_{id}",
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }
    return orjson.dumps(told) + b"\n"
