"""What `progress=True` prints while a job is waited for: one line that rewrites itself on a
terminal, a line for each change elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promptmill.client.job import Job


def line(job: Job) -> str:
    """`job_…: 12/40 images, 8.0 images/s, 4 s left`."""
    parts = [f"{job.id}: {job.counts.rendered:,}/{job.counts.total:,} images"]
    if job.finished:
        parts.append(job.state)
    elif job.rate:
        parts.append(f"{job.rate:.1f} images/s")
        if job.eta is not None:
            parts.append(f"{job.eta:.0f} s left")
    return ", ".join(parts)


class Printed:
    """Called with a job as it moves."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, job: Job) -> None:
        text = line(job)
        if text == self._last:
            return
        if sys.stdout.isatty():
            sys.stdout.write("\r" + text.ljust(len(self._last)) + ("\n" if job.finished else ""))
        else:
            sys.stdout.write(text + "\n")
        sys.stdout.flush()
        self._last = text
