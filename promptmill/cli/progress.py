"""Progress of a job, an upload or a download: a bar with rate and time left on a terminal,
a line every few seconds elsewhere. Writes to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import click

from promptmill.cli import output

if TYPE_CHECKING:
    from promptmill.client import Job

EVERY = 5.0  # seconds between two plain lines
LEAST_SPAN = 1.0  # seconds that a rate must be taken over
NAMED = 100  # columns from which on a bar has room for its name


class Meter(Protocol):
    def update(
        self, done: int, total: int | None, *, rate: float, eta: float | None, note: str = ""
    ) -> None:
        """`done` of `total` (None: unknown); rate: a second; eta: seconds."""
        ...


@contextmanager
def meter(label: str, unit: str) -> Iterator[Meter]:
    """The meter that suits stderr. unit: images or bytes."""
    if sys.stderr.isatty():
        with _bar(label, unit) as bar:
            yield bar
    else:
        lines = _Lines(label, unit)
        yield lines
        lines.close()


def show_job(bar: Meter, job: Job) -> None:
    """One step of a job on its meter."""
    counts = job.counts
    note = f"{counts.failed:,} failed" if counts.failed else ""
    step = job.data.get("rendering")
    if job.data.get("notice"):
        note = str(job.data["notice"])
    elif step:
        what = "measuring batch shapes, step" if step["measuring"] else "step"
        note = ", ".join(filter(None, [f"{what} {step['step']} of {step['steps']}", note]))
    elif not job.finished and job.state != "running":
        note = f"{job.state}, {note}" if note else job.state
    bar.update(counts.rendered, counts.total, rate=job.rate, eta=job.eta, note=note)


class Pace:
    """Rate and time left of what this process counts itself."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._base: int | None = None

    def of(self, done: int, total: int | None) -> tuple[float, float | None]:
        """(a second, seconds left); what was there at the first call does not count, and 0
        and None before there is enough time to tell."""
        self._base = done if self._base is None else self._base
        spent = time.monotonic() - self._started
        rate = (done - self._base) / spent if spent >= LEAST_SPAN else 0.0
        return rate, max(0, total - done) / rate if total is not None and rate > 0 else None


def amount(count: float, unit: str) -> str:
    return output.size(count) if unit == "bytes" else f"{count:,.0f}"


def speed(rate: float, unit: str) -> str:
    if unit == "bytes":
        return f"{output.size(rate)}/s"
    return f"{rate:,.0f} images/s" if rate >= 20 else f"{rate:.1f} images/s"


class _Lines:
    def __init__(self, label: str, unit: str) -> None:
        self._label, self._unit = label, unit
        self._told = -EVERY
        self._last = self._written = ""

    def update(
        self, done: int, total: int | None, *, rate: float, eta: float | None, note: str = ""
    ) -> None:
        of = "" if total is None else f"/{amount(total, self._unit)}"
        parts = [f"{amount(done, self._unit)}{of} {self._unit if self._unit == 'images' else ''}"]
        parts += [speed(rate, self._unit)] if rate else []
        parts += [f"{output.duration(eta)} left"] if eta is not None and done != total else []
        parts += [note] if note else []
        self._last = f"{self._label}: {', '.join(part.strip() for part in parts)}"
        if time.monotonic() - self._told >= EVERY:
            self._write()

    def close(self) -> None:
        if self._last != self._written:
            self._write()

    def _write(self) -> None:
        self._told, self._written = time.monotonic(), self._last
        click.echo(self._last, err=True)


@contextmanager
def _bar(label: str, unit: str) -> Iterator[Meter]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    named = [TextColumn("{task.description}")] if output.columns() >= NAMED else []
    columns = (
        *named,
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[count]}"),
        TextColumn("{task.fields[speed]}"),
        TextColumn("{task.fields[left]}"),
        TextColumn("[yellow]{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), expand=True) as progress:
        task = progress.add_task(label, total=None, count="", speed="", left="", note="")

        class Bar:
            def update(
                self,
                done: int,
                total: int | None,
                *,
                rate: float,
                eta: float | None,
                note: str = "",
            ) -> None:
                of = "" if total is None else f"/{amount(total, unit)}"
                progress.update(
                    task,
                    completed=done,
                    total=total,
                    count=amount(done, unit) + of,
                    speed=speed(rate, unit) if rate else "",
                    left=f"{output.duration(eta)} left"
                    if eta is not None and done != total
                    else "",
                    note=note,
                )

        yield Bar()
