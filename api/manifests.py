"""The manifest of a job, written while it is sent, a page of images at a time: memory stays
flat however many there are."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

from api.farm import Farm
from promptmill import jobs, manifest, records
from promptmill.store import images as stored_images
from promptmill.store import secrets

PAGE = 1000


def signer(farm: Farm) -> manifest.Signer:
    """Signs with the farm's key, which is made when it is first asked for."""
    seed = secrets.get(farm.db, secrets.MANIFESTS, lambda: os.urandom(manifest.SEED_BYTES))
    return manifest.Signer(seed)


def write(farm: Farm, job: records.Job, *, prompts: bool) -> Iterator[bytes]:
    """The manifest in pieces of a page each. A finished job's is always the same, byte for
    byte. prompts: also their text."""
    images = (_line(image, prompts=prompts) for image in _done(farm, job))
    waiting: list[bytes] = []
    for text in signer(farm).write(_header(job), images):
        waiting.append(text)
        if len(waiting) == PAGE:
            yield b"".join(waiting)
            waiting.clear()
    yield b"".join(waiting)


def _header(job: records.Job) -> dict[str, Any]:
    """What does not change once the job is over."""
    return {
        "job": job.public_id,
        "model": job.model,
        "seed": job.seed,
        "generation": job.generation,
        "final": job.state in jobs.FINAL,
        "total": job.counts.total,
        "format": job.output.format,
        "created_at": job.created_at,
        "finished_at": job.finished_at,
    }


def _done(farm: Farm, job: records.Job) -> Iterator[records.Image]:
    done = [jobs.ImageState.DONE]
    pages = stored_images.walk(farm.db, job, limit=PAGE, states=done, cache=farm.segments)
    return itertools.chain.from_iterable(pages)


def _line(image: records.Image, *, prompts: bool) -> dict[str, Any]:
    item = image.item
    line = {
        "index": item.index,
        "row": item.row,
        "sample": item.sample,
        "custom_id": item.custom_id,
        "sha256": image.sha256.hex() if image.sha256 else None,
        "bytes": image.bytes,
        "width": item.width,
        "height": item.height,
        "seed": item.seed,
        "task": item.task,
        "source": item.source,
        "mask": item.mask,
        "fingerprint": image.fingerprint,
        "prompt_sha256": manifest.prompt_hash(item.prompt),
    }
    return line | {"prompt": item.prompt} if prompts else line
