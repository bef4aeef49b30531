"""The names of objects below the storage prefix. Nothing else in the tree builds a key."""

from __future__ import annotations

from promptmill.records import Output


def job_prefix(output: Output, job: str) -> str:
    """All objects of a job (its public id)."""
    below = f"{output.prefix.strip('/')}/" if output.prefix else ""
    return f"{below}jobs/{job}/"


def generation_prefix(output: Output, job: str, generation: int) -> str:
    """All objects of one generation of a job."""
    return f"{job_prefix(output, job)}g{generation}/"


def image(output: Output, job: str, *, generation: int, index: int) -> str:
    return f"{generation_prefix(output, job, generation)}{index:09d}.{output.extension()}"


def part(output: Output, job: str, *, generation: int, lease: str) -> str:
    """The tar part that one lease makes for one job."""
    return f"{generation_prefix(output, job, generation)}parts/{lease}.tar"


def sources(output: Output, job: str) -> str:
    """All pictures that the items of a job start from: they live as long as it does."""
    return f"{job_prefix(output, job)}sources/"


def source(output: Output, job: str, *, sha256: str) -> str:
    return f"{sources(output, job)}{sha256}"


def repaired(output: Output, job: str, *, generation: int, index: int, nonce: str) -> str:
    name = f"repaired/{index:09d}-{nonce}.{output.extension()}"
    return generation_prefix(output, job, generation) + name


def file(public_id: str) -> str:
    """An uploaded file."""
    return f"files/{public_id}"


def upload_prefix(public_id: str) -> str:
    """All parts of a file that is uploaded in parts."""
    return f"uploads/{public_id}/"


def upload_part(upload: str, part: str) -> str:
    return f"{upload_prefix(upload)}{part}"


def export_prefix(output: Output, job: str, export: str) -> str:
    """All objects of an export: below the job's, so that they go with it."""
    return f"{job_prefix(output, job)}exports/{export}/"


def export_file(output: Output, job: str, export: str, *, name: str) -> str:
    return export_prefix(output, job, export) + name
