"""Commands about where pictures come from and who was told of them: manifests, the rows
behind a picture, the delivery log of webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from promptmill import manifest as manifests
from promptmill.cli import connection, output, progress
from promptmill.client import Image
from promptmill.client.manifests import Report, check


@click.command()
@click.argument("job")
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="Where to.")
@click.option("--prompts", is_flag=True, help="With the text of prompts, not only their hash.")
def manifest(job: str, out: Path | None, prompts: bool) -> None:
    """Save a job's signed manifest: a line per picture with its sha256. Default: to
    JOB-manifest.jsonl; `verify-manifest` checks it."""
    with connection.farm() as client:
        path = client.job(job).manifest(out, prompts=prompts)
    click.echo(path)


@click.command("verify-manifest")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument(
    "folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path, file_okay=False)
)
@click.option(
    "--key",
    metavar="KEY|FILE",
    help="The public key that must have signed it: base64, or a file with it (PEM).",
)
@output.as_json
def verify_manifest(file: Path, folder: Path | None, *, key: str | None, json_: bool) -> int:
    """Check a manifest, and the pictures in DIR against it, without a farm. The farm's key is
    at /v1/provenance/key; without --key the manifest vouches for itself only."""
    told = Path(key).read_text() if key and Path(key).is_file() else key
    with progress.meter(file.name, "images") as bar:
        pace = progress.Pace()

        def step(count: int) -> None:
            if count % 100 == 0:
                rate, _ = pace.of(count, None)
                bar.update(count, None, rate=rate, eta=None)

        report = check(file, folder, key=told, progress=step)
    if json_:
        signed = asdict(report.manifest)
        signed["key"] = manifests.encoded(report.manifest.key)
        output.print_json(asdict(report) | {"manifest": signed, "complete": report.complete})
    else:
        _print_report(report, file=file, folder=folder, pinned=key is not None)
    return 0 if report.complete else 1


def _print_report(report: Report, *, file: Path, folder: Path | None, pinned: bool) -> None:
    signed = report.manifest
    whose = "" if pinned else " (its own word: pass --key to be sure whose)"
    click.echo(f"{file}: {signed.images:,} images of {signed.job}, unchanged")
    click.echo(f"signed by {manifests.key_id(signed.key)}{whose}")
    if not signed.final:
        click.echo("the job was still running: there may be more images")
    if folder is None:
        return
    click.echo(f"{folder}: {report.found:,} of {signed.images:,} images are there and right")
    for name, count, indexes in (
        ("missing", report.missing_count, report.missing),
        ("damaged", report.damaged_count, report.damaged),
    ):
        if count:
            shown = ", ".join(map(str, indexes[:10])) + (", …" if count > 10 else "")
            click.echo(f"{count:,} {name}: {shown}", err=True)


@click.command()
@click.argument("picture", metavar="FILE|SHA256")
@output.as_json
def provenance(picture: str, json_: bool) -> int:
    """Which job, row, prompt and seed made a picture, by its bytes."""
    with connection.farm() as client:
        found = list(client.provenance(picture))
    for image in found:
        if json_:
            output.print_json(image.data)
        else:
            output.print_fields(_origin(image))
            click.echo("")
    if not found:
        click.echo("no image of your jobs has these bytes", err=True)
    return 0 if found else 1


def _origin(image: Image) -> dict[str, object]:
    data = image.data
    size = f"{data.get('width')}x{data.get('height')}"
    return {
        "job": data.get("job_id"),
        "image": str(image.index),
        "row": f"{data.get('row')}, sample {data.get('sample')}",
        "id": data.get("custom_id"),
        "prompt": image.prompt,
        "expanded": image.expanded_prompt if image.expanded else None,
        "negative": data.get("negative_prompt"),
        "seed": str(data.get("seed")),
        "task": data.get("task"),
        "source": data.get("source"),
        "mask": data.get("mask"),
        "size": size,
        "model": data.get("model"),
        "fingerprint": data.get("fingerprint"),
        "sha256": image.sha256,
        "rendered": output.moment(data.get("finished_at")),
    }


@click.command()
@click.argument("job")
@click.option("--redeliver", is_flag=True, help="Send again what was given up.")
@click.option("--event", metavar="EVENT", help="With --redeliver: send this one again.")
@output.as_json
def webhooks(job: str, *, redeliver: bool, event: str | None, json_: bool) -> None:
    """Show every attempt to deliver a job's webhooks, newest event first."""
    if event and not redeliver:
        raise click.UsageError("--event goes with --redeliver")
    with connection.farm() as client:
        found = client.job(job)
        if redeliver:
            count = found.redeliver(event)
            events = "event" if count == 1 else "events"
            click.echo(f"{job}: {count:,} {events} will be sent again", err=True)
        for told in found.webhooks():
            if json_:
                output.print_json(told)
            else:
                _print_event(told)


def _print_event(event: Mapping[str, Any]) -> None:
    due = "" if event["due_at"] is None else f", next try {output.moment(event['due_at'])}"
    state = str(event["state"]).replace("_", " ")
    click.echo(f"{event['id']}  {event['type']}  {state}{due}")
    click.echo(f"  to {event['url']}")
    for attempt in event["attempts"]:
        result = attempt["error"] or f"HTTP {attempt['status']}"
        click.echo(f"  {output.moment(attempt['at'])}  {result}  ({attempt['seconds']:.2f} s)")
