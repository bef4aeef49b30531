"""From pictures to files, objects and the rows that name them. Pure but for the hashing:
knows neither the store of objects nor the database that its results are for."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from promptmill import keys
from promptmill.blobs import New, Stored, tar
from promptmill.jobs import ImageState
from promptmill.leases import Lease
from promptmill.records import Result, Work
from worker import encode
from worker.outcomes import Fault, Outcome, Picture

ERROR_TEXT = 1000  # characters kept of why an image failed


@dataclass(frozen=True, slots=True)
class File:
    """A picture as the bytes of a file. sha256: of `data`."""

    work: Work
    picture: Picture
    data: bytes
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """An item that has no picture, and why."""

    work: Work
    fault: Fault


@dataclass(frozen=True, slots=True)
class Bundle:
    """An object to create and the files in it. places: (offset, length) of each in a tar
    part; None when the object is the file."""

    object: New
    files: Sequence[File]
    places: Sequence[tuple[int, int]] | None


@dataclass(frozen=True, slots=True)
class Kept:
    """A file whose object is in the store: where, and the facts its row must name."""

    file: File
    key: str
    sha256: bytes
    bytes: int
    fingerprint: str
    seed: int
    score: float | None
    offset: int | None = None
    length: int | None = None


def sort_out(
    outcomes: Sequence[tuple[Work, Outcome]],
) -> tuple[list[tuple[Work, Picture]], list[Refused]]:
    """What was rendered, and what was refused: by the generator, or because its job is
    pinned to another fingerprint."""
    pictures: list[tuple[Work, Picture]] = []
    refused: list[Refused] = []
    for work, outcome in outcomes:
        if isinstance(outcome, Fault):
            refused.append(Refused(work, outcome))
        elif work.pinned and work.pinned != outcome.fingerprint:
            text = f"the job is pinned to {work.pinned}, this worker renders {outcome.fingerprint}"
            refused.append(Refused(work, Fault("fingerprint_unavailable", text)))
        else:
            pictures.append((work, outcome))
    return pictures, refused


def to_file(pair: tuple[Work, Picture]) -> File:
    work, picture = pair
    data = encode.encode(
        picture.pixels,
        picture.item,
        model=work.model,
        fingerprint=picture.fingerprint,
        format=work.output.format,
    )
    return File(work, picture, data, hashlib.sha256(data).digest())


def bundle(files: Sequence[File], lease: Lease) -> list[Bundle]:
    """One object a file, or one tar part a job, as each job asks for."""
    single = [_single(file, lease.worker) for file in files if file.work.output.packing == "image"]
    packed: dict[int, list[File]] = defaultdict(list)
    for file in files:
        if file.work.output.packing == "tar":
            packed[file.work.job_id].append(file)
    return [*single, *(_part(members, lease) for members in packed.values())]


def _single(file: File, worker: str) -> Bundle:
    work = file.work
    key = keys.image(work.output, work.job, generation=work.generation, index=work.item.index)
    facts = {
        "seed": str(file.picture.item.seed),
        "fingerprint": file.picture.fingerprint,
        "index": str(work.item.index),
        "attempt": str(work.attempt),
        "worker": worker,
    }
    if file.picture.score is not None:
        facts["score"] = repr(file.picture.score)
    kind = encode.CONTENT_TYPES[work.output.format]
    return Bundle(New(key, file.data, kind, facts), [file], None)


def _part(files: Sequence[File], lease: Lease) -> Bundle:
    first = files[0].work
    data, places = tar.pack([_sample(file) for file in files])
    key = keys.part(first.output, first.job, generation=first.generation, lease=lease.id)
    return Bundle(New(key, data, tar.CONTENT_TYPE, {}), files, places)


def _sample(file: File) -> tar.Sample:
    item, output = file.picture.item, file.work.output
    info = tar.describe(
        item,
        model=file.work.model,
        fingerprint=file.picture.fingerprint,
        sha256=file.sha256.hex(),
        score=file.picture.score,
    )
    return tar.Sample(item.index, file.data, output.extension(), text=item.prompt, info=info)


def keep(made: Bundle, there: Stored) -> list[Kept]:
    """An object that was there before is adopted with its own facts: its bytes are what the
    row must name."""
    if made.places is None:
        [file] = made.files
        return [_adopted(file, there)]
    return [
        Kept(
            file,
            there.key,
            file.sha256,
            len(file.data),
            file.picture.fingerprint,
            file.picture.item.seed,
            file.picture.score,
            offset=offset,
            length=length,
        )
        for file, (offset, length) in zip(made.files, made.places, strict=True)
    ]


def _adopted(file: File, there: Stored) -> Kept:
    picture, known = file.picture, there.metadata
    score = known.get("score")
    return Kept(
        file,
        there.key,
        bytes.fromhex(there.sha256),
        there.size,
        fingerprint=known.get("fingerprint", picture.fingerprint),
        seed=int(known.get("seed", picture.item.seed)),
        score=float(score) if score else picture.score,
    )


def done(kept: Kept, worker: str) -> Result:
    work, picture = kept.file.work, kept.file.picture
    tried = [[attempt.seed, attempt.score] for attempt in picture.attempts]
    return Result.of(
        work,
        ImageState.DONE,
        worker=worker,
        fingerprint=kept.fingerprint,
        seed=kept.seed,
        score=kept.score,
        rerolls=json.dumps(tried) if tried else None,
        expanded_prompt=picture.item.prompt if work.item.expand else None,
        render_ms=picture.milliseconds,
        key=kept.key,
        offset=kept.offset,
        length=kept.length,
        sha256=kept.sha256,
        bytes=kept.bytes,
    )


def failed(refused: Refused, worker: str, *, fingerprint: str) -> Result:
    return Result.of(
        refused.work,
        ImageState.FAILED,
        worker=worker,
        fingerprint=fingerprint,
        error_code=refused.fault.code,
        error_text=refused.fault.text[:ERROR_TEXT],
    )
