"""Commands about a job's pictures: list, download, export, verify."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from promptmill.cli import connection, jobs, output, progress
from promptmill.client import Download, Image, Job, Verification, exports


def fetch(job: Job, folder: Path, *, follow: bool, threads: int = 8) -> Download:
    """Downloads with a meter."""
    with progress.meter(f"{job.id} → {folder}", "images") as bar:
        pace = progress.Pace()

        def step(now: Download) -> None:
            most = now.total - now.failed if follow else job.counts.done
            wanted = max(most, now.present)  # more are listed than were done at the last look
            rate, eta = pace.of(now.present, wanted)
            bar.update(now.present, wanted, rate=rate, eta=eta, note=output.size(now.bytes))

        return job.download(folder, threads=threads, follow=follow, progress=step)


@click.command("images")
@click.argument("job")
@click.option("--state", type=click.Choice(["queued", "rendering", "done", "failed", "cancelled"]))
@click.option("--code", help="Only images that failed with this code.")
@click.option("--after", type=int, help="Only images behind this index.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@output.as_json
def images_(
    job: str, *, state: str | None, code: str | None, after: int | None, limit: int, json_: bool
) -> None:
    """List a job's images in row order."""
    with connection.farm() as client:
        found = client.job(job).images(state=state, code=code, after=after)
        chosen = itertools.islice(found, limit)
        if json_:
            for image in chosen:
                output.print_json(image.data)
        else:
            _print(list(chosen))


def _print(images: Sequence[Image]) -> None:
    heads = ("index", "row", "state", "seed", "bytes", "sha256", "prompt", "expanded_prompt")
    shown = len(heads) if any(image.expanded for image in images) else len(heads) - 1
    output.print_table(
        heads[:shown], (_row(image)[:shown] for image in images), giving=heads[6:shown]
    )


def _row(image: Image) -> tuple[object, ...]:
    data = image.data
    error = data.get("error") or {}
    text = (
        f"[{error.get('code')}] {error.get('message')}: {image.prompt}" if error else image.prompt
    )
    sha = (image.sha256 or "")[:12] or None
    seed = None if data.get("seed") is None else str(data["seed"])
    return (
        *(str(image.index), str(data.get("row")), image.state, seed),
        *(data.get("bytes") or None, sha, output.shorten(text, 80)),
        output.shorten(image.expanded_prompt, 80) if image.expanded else None,
    )


@click.command()
@click.argument("job")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--follow", "--watch", is_flag=True, help="Go on until the job is finished.")
@click.option("--threads", type=click.IntRange(1, 64), default=8, show_default=True)
@output.as_json
def download(job: str, folder: Path, *, follow: bool, threads: int, json_: bool) -> int:
    """Download a job's images into DIR: images/, metadata.jsonl and failures.jsonl. Only what
    is not there yet with its sha256 is fetched."""
    with connection.farm() as client:
        found = client.job(job)
        result = fetch(found, folder, follow=follow, threads=threads)
    if json_:
        output.print_json({name: getattr(result, name) for name in Download.__slots__})
    else:
        click.echo(
            f"{folder}: {result.present:,} of {result.total:,} images "
            f"({result.fetched:,} new, {result.failed:,} failed, {output.size(result.bytes)})"
        )
    return jobs.verdict(found) if follow else 0


@click.command()
@click.argument("job")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--format", type=click.Choice(exports.FORMATS), default="webdataset", show_default=True
)
@click.option("--shard-images", type=click.IntRange(1), help="Images in a shard, at most.")
@click.option("--no-follow", is_flag=True, help="Bring what is sealed now and wait for nothing.")
@output.as_json
def export(
    job: str, folder: Path, *, format: str, shard_images: int | None, no_follow: bool, json_: bool
) -> int:
    """Make a dataset of a job and bring it into DIR, shard by shard while it renders. Goes on
    where it stopped; every file is checked against its sha256."""
    with connection.farm() as client, progress.meter(f"{job} → {folder}", "images") as bar:
        found = client.job(job)
        pace = progress.Pace()

        def step(now: exports.Exported) -> None:
            total = found.counts.total
            rate, eta = pace.of(now.images + now.failed, total)
            note = output.size(now.bytes)
            bar.update(now.images + now.failed, total, rate=rate, eta=eta, note=note)

        made = exports.create(found, format, shard_images=shard_images, reuse=True)
        result = made.download(folder, follow=not no_follow, progress=step)
    if json_:
        output.print_json(asdict(result) | {"folder": str(folder)})
    else:
        click.echo(
            f"{folder}: {output.count(result.images, 'image')} in "
            f"{output.count(result.shards, 'shard')}, {result.failed:,} failed "
            f"({output.size(result.bytes)}, {output.size(result.fetched)} new)"
            + ("" if result.finished else "; more will come: run it again")
        )
    return 0


@click.command()
@click.argument("job")
@click.option("--sample", type=click.IntRange(1), default=8, show_default=True)
@click.option("--all", "all_", is_flag=True, help="Every image instead of a sample.")
@click.option("--repair", is_flag=True, help="Put damaged objects right.")
@output.as_json
def verify(job: str, *, sample: int, all_: bool, repair: bool, json_: bool) -> int:
    """Have the farm render images again and compare their bytes."""
    with connection.farm() as client, progress.meter(f"{job}: rendered again", "images") as bar:
        report = client.job(job).verify(
            sample=None if all_ else sample,
            repair=repair,
            progress=lambda now: progress.show_job(bar, now),
        )
    if json_:
        output.print_json(asdict(report))
        return 0 if report.ok else 1
    for fault in report.faults:
        click.echo(_fault(fault, report))
    counted = ", ".join(f"{count:,} {status}" for status, count in _left(report).items())
    click.echo(f"{job}: {counted or 'no image is done'}")
    return 0 if report.ok else 1


def _left(report: Verification) -> Mapping[str, int]:
    """How many images are in which state now: what was repaired is no longer damaged."""
    counts = Counter(report.statuses)
    for fault in report.faults:
        if fault["index"] in report.repaired:
            counts[fault["status"]] -= 1
            counts["repaired"] += 1
    return {status: count for status, count in counts.items() if count}


def _fault(fault: Mapping[str, Any], report: Verification) -> str:
    line = f"image {fault['index']} (row {fault['row']}): {fault['status']}"
    if fault["index"] in report.repaired:
        return f"{line}, repaired"
    if fault["index"] in report.unrepairable:
        return f"{line}, cannot be repaired"
    shas = [fault.get(name) for name in ("sha256", "stored_sha256", "rendered_sha256")]
    recorded, stored, rendered = ((str(sha)[:12] if sha else "-") for sha in shas)
    return f"{line} (sha256 recorded {recorded}, stored {stored}, rendered {rendered})"
