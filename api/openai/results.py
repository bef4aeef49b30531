"""The output and error files of a batch, made from its job's rows whenever they are read:
nothing is stored twice, links are fresh, and a file grows while its job runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from api.farm import Farm
from api.openai import images, lines
from promptmill import jobs, records
from promptmill.blobs import CHUNK, gather
from promptmill.jobs import ImageState
from promptmill.store import images as stored_images
from promptmill.store.batch_ends import Outcome
from promptmill.store.batches import Batch

PAGE: Final = 1000
NEVER_RUN: Final = {
    jobs.JobState.EXPIRED: (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
    jobs.JobState.CANCELLED: (
        "batch_cancelled",
        "This request was not executed because the batch was cancelled.",
    ),
}
Told = tuple[records.Image, bytes | None]  # with its bytes, where the request wants them
Read = Callable[[list[records.Image]], Iterator[Told]]


class Results:
    """What became of the requests of a batch. url: of a done image."""

    def __init__(self, farm: Farm, batch: Batch, job: records.Job, url: images.Url) -> None:
        self._farm = farm
        self._batch = batch
        self._job = job
        self._url = url

    def output(self) -> Iterator[bytes]:
        """The output file so far, in pieces: one line for each request that succeeded."""
        # The rows of done images alone, where each request has one image.
        states = [ImageState.DONE] if self._single() else None
        return _pieces(self._lines(states, self._read, output=True))

    def errors(self) -> Iterator[bytes]:
        """The error file so far: requests that failed, and, at the end, that never ran."""
        states = None
        if self._single():
            rest = [ImageState.CANCELLED] if self._job.state in NEVER_RUN else []
            states = [ImageState.FAILED, *rest]
        return _pieces(self._lines(states, self._read, output=False))

    def weigh(self, watch: Callable[[], None]) -> tuple[int, int, int, int]:
        """(completed, failed, bytes of the output file, bytes of the error file), without
        reading a picture. watch: called now and then."""
        completed = failed = output = wrong = 0
        for number, group in enumerate(self._groups(None, _unread)):
            if number % PAGE == 0:
                watch()
            verdict = _verdict(group)
            line = self._line(group, verdict)
            if verdict == "done":
                completed += 1
                output += len(line) + sum(_in_base64(image) for image, _ in group)
            elif line:
                failed += verdict == "failed"
                wrong += len(line)
        return completed, failed, output, wrong

    def _single(self) -> bool:
        return self._batch.requests == self._job.counts.total

    def _lines(
        self, states: list[ImageState] | None, read: Read, *, output: bool
    ) -> Iterator[bytes]:
        for group in self._groups(states, read if output else _unread):
            verdict = _verdict(group)
            if (verdict == "done") is output and (line := self._line(group, verdict)):
                yield line

    def _groups(self, states: list[ImageState] | None, read: Read) -> Iterator[list[Told]]:
        """The images of each request in turn."""
        told = itertools.chain.from_iterable(read(page) for page in self._pages(states))
        for _, group in itertools.groupby(told, key=lambda one: one[0].item.row):
            yield list(group)

    def _pages(self, states: list[ImageState] | None) -> Iterator[list[records.Image]]:
        return stored_images.walk(
            self._farm.db, self._job, limit=PAGE, states=states, cache=self._farm.segments
        )

    def _read(self, page: list[records.Image]) -> Iterator[Told]:
        """With the bytes of those that are to be sent inline, several read at a time."""
        wanted = [image for image in page if _inline(image)]
        data = dict[int, bytes | None]()
        pictures = gather.pictures(self._farm.blobs, wanted) if wanted else iter(())
        for image in page:
            while _inline(image) and image.item.index not in data:
                other, found = next(pictures)
                data[other.item.index] = found
            yield image, data.pop(image.item.index, None)

    def _line(self, group: list[Told], verdict: str) -> bytes:
        """Empty for a request that still waits."""
        first = group[0][0].item
        id = f"{self._batch.public_id.removeprefix('batch_')}{first.row:08d}"
        if verdict == "done":
            return lines.result(id, first.custom_id, status=200, body=self._body(group))
        if verdict == "failed":
            bad = next(image for image, _ in group if image.state is ImageState.FAILED)
            error = images.failure(bad)
            return lines.result(id, first.custom_id, status=error.status, body=error.body())
        if (never := NEVER_RUN.get(self._job.state)) is None:
            return b""
        return lines.not_executed(id, first.custom_id, code=never[0], message=never[1])

    def _body(self, group: list[Told]) -> dict[str, Any]:
        """The answer that the request alone would have had."""
        data = [
            images.data_of(
                self._job,
                image,
                data=(found or b"") if _inline(image) else None,
                url=self._url,
            ).model_dump(exclude_none=True)
            for image, found in group
        ]
        return {
            "created": int(max(image.finished_at or 0.0 for image, _ in group)),
            "data": data,
            "output_format": self._job.output.format,
            "size": group[0][0].item.size,
            "quality": "auto",
            "background": "opaque",
            "job_id": self._job.public_id,
        }


def outcome(results: Results, job: records.Job, watch: Callable[[], None]) -> Outcome:
    """What became of the batch of a job that is over."""
    completed, failed, output, wrong = results.weigh(watch)
    return Outcome(
        str(job.state), completed=completed, failed=failed, output_bytes=output, error_bytes=wrong
    )


def _verdict(group: Iterable[Told]) -> str:
    """What became of one request: done, failed, or waiting (it may be for ever)."""
    states = {image.state for image, _ in group}
    if states == {ImageState.DONE}:
        return "done"
    return "failed" if states <= {ImageState.DONE, ImageState.FAILED} else "waiting"


def _inline(image: records.Image) -> bool:
    wanted = image.item.metadata.get("response_format") == "b64_json"
    return wanted and image.state is ImageState.DONE


def _in_base64(image: records.Image) -> int:
    return 4 * ((image.bytes + 2) // 3) if _inline(image) else 0


def _unread(page: list[records.Image]) -> Iterator[Told]:
    return ((image, None) for image in page)


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    held = bytearray()
    for line in lines:
        held += line
        if len(held) >= CHUNK:
            yield bytes(held)
            held.clear()
    yield bytes(held)
