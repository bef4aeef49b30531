"""`promptmill submit`: rows from a file, standard input or an object, to a job."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from promptmill import errors
from promptmill.cli import connection, images, jobs, objects, output, progress
from promptmill.client import Body, Client, Job, body
from promptmill.client.sources import TYPES

TEXTS = frozenset(
    {"model", "name", "priority", "webhook", "fingerprint", "window", "prompt", "template"}
    | {"format", "packing", "prefix", "on_unsupported", "idempotency_key"}
)
LISTED_TEXTS = frozenset({"task", "size", "source", "mask", "negative_prompt", "negative", "lora"})
"""Of these a list makes the product."""
SHOWN_ABOVE = 4_000_000  # bytes: smaller uploads get no meter


class Pair(click.ParamType[tuple[str, str]]):
    """`KEY=VALUE`."""

    name = "key=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        key, equals, text = str(value).partition("=")
        if not equals or not key:
            self.fail(f"{value!r} is not KEY=VALUE", param, ctx)
        return key, text


def source(name: str, format: str | None) -> Body:
    """The rows named on the command line: `-`, `s3://bucket/key` or a path."""
    if name == "-":
        return body(sys.stdin.buffer, format=format)
    if name.startswith("s3://"):
        return objects.body(name, format=format)
    return body(Path(name), format=format)


def gathered(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """`--set` options as defaults: JSON where a value is no text, a list where a key is given
    more than once or its value is a JSON list."""
    found: dict[str, list[Any]] = {}
    for key, text in pairs:
        value = _value(key, text)
        found.setdefault(key, []).extend(value if isinstance(value, list) else [value])
    return {key: values[0] if len(values) == 1 else values for key, values in found.items()}


def _value(key: str, text: str) -> Any:
    """A text stays as it is: 1.10 is no number where it is a name."""
    if key in TEXTS:
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if key in LISTED_TEXTS and not isinstance(value, list) else value


def _send(client: Client, rows: Body, key: str | None, defaults: Mapping[str, Any]) -> Job:
    if rows.size is not None and rows.size < SHOWN_ABOVE:
        return client.submit(rows, idempotency_key=key, **defaults)
    with progress.meter("upload", "bytes") as bar:
        pace = progress.Pace()

        def sent(count: int) -> None:
            rate, eta = pace.of(count, rows.size)
            bar.update(count, rows.size, rate=rate, eta=eta)

        return client.submit(rows, idempotency_key=key, sent=sent, **defaults)


@click.command()
@click.argument("file")
@click.option("--model", help="Model; default: the farm's.")
@click.option("--size", metavar="WxH", help="Size in pixels.")
@click.option("--steps", type=int)
@click.option("--guidance", type=float)
@click.option("--negative", "negative_prompt", help="Negative prompt.")
@click.option("--seed", type=int, help="Seed of the job; rows derive theirs from it.")
@click.option("--n", type=click.IntRange(1), help="Images per row.")
@click.option("--priority", type=click.Choice(["interactive", "normal", "bulk"]))
@click.option("--name", help="A name for people.")
@click.option("--packing", type=click.Choice(["image", "tar"]), help="How objects are stored.")
@click.option("--format", type=click.Choice(["png", "webp", "jpeg"]), help="Picture format.")
@click.option("--input", "kind", type=click.Choice(list(TYPES)), help="Format of FILE.")
@click.option("--map", "maps", type=Pair(), multiple=True, help="prompt=caption: rename columns.")
@click.option("--set", "sets", type=Pair(), multiple=True, help="Any default; again for a list.")
@click.option("--on-unsupported", type=click.Choice(["refuse", "warn"]))
@click.option("--idempotency-key", help="Sending again under this key doubles nothing.")
@click.option("--dry-run", is_flag=True, help="Show the plan, make nothing.")
@click.option("--watch", is_flag=True, help="Follow the job to its end.")
@click.option("--out", type=click.Path(path_type=Path), help="Download into this folder.")
@output.as_json
def submit(
    file: str,
    *,
    kind: str | None,
    maps: Sequence[tuple[str, str]],
    sets: Sequence[tuple[str, str]],
    idempotency_key: str | None,
    dry_run: bool,
    watch: bool,
    out: Path | None,
    json_: bool,
    **options: Any,
) -> int:
    """Submit FILE: JSON lines, CSV, text (a prompt a line), Parquet, or a JSON document; also
    gzipped, `-` for standard input, `s3://bucket/key` for an object.

    --set KEY=VALUE sets any default; given more than once, or as a JSON list, the job is the
    product: --set guidance=2 --set guidance=7 renders each row with both.
    """
    defaults = gathered(sets) | {
        name: value for name, value in options.items() if value is not None
    }
    if maps:
        defaults["map"] = [f"{key}={text}" for key, text in maps]
    rows = source(file, kind)
    with connection.farm() as client:
        if dry_run:
            return _show_plan(client.plan(rows, **defaults), json_)
        try:
            job = _send(client, rows, idempotency_key, defaults)
        except (errors.BadRow, errors.UnsupportedParameter) as error:
            if error.line is not None:
                error.message += "; --dry-run lists such rows"
            raise
        if json_ and not (watch or out):
            output.print_json(job.data)
        elif not json_:
            click.echo(job.id)
        _announce(job)
        if out is not None:
            images.fetch(job, out, follow=True)
        elif watch:
            jobs.follow(job)
        else:
            return 0
    if json_:
        output.print_json(job.data)
    return jobs.verdict(job)


def _announce(job: Job) -> None:
    total, model = job.counts.total, job.data.get("model")
    images = "image" if total == 1 else "images"
    click.echo(f"{job.id}: {total:,} {images} of {model}, {job.state}", err=True)
    found = (job.data.get("warnings") or {}).get("data", [])
    for warning in found[:5]:
        click.echo(f"warning: {_remark(warning)}", err=True)
    if job.data.get("notice"):
        click.echo(f"warning: {job.data['notice']}", err=True)


def _show_plan(plan: Mapping[str, Any], json_: bool) -> int:
    if json_:
        output.print_json(plan)
    else:
        _print_plan(plan)
    return 0 if plan.get("valid", True) else 1


def _print_plan(plan: Mapping[str, Any]) -> None:
    output.print_fields(
        {
            "model": plan.get("model"),
            "rows": plan.get("rows"),
            "images": plan.get("images"),
            "duplicates": plan.get("duplicates"),
            "about": output.size(plan.get("bytes") or 0),
            "rendering": output.duration(plan.get("generator_seconds")),
            "time left": output.duration(plan.get("eta_seconds")),
        }
    )
    for bucket in plan.get("buckets") or ():
        click.echo(f"bucket   {bucket['images']:>9,}  {bucket['bucket']}")
    for image in (plan.get("first") or ())[:5]:
        click.echo(f"image    {image['index']:>9,}  {output.shorten(image['prompt'], 80)}")
    for kind in ("problem", "warning"):
        remarks = plan.get(f"{kind}s") or {}
        listed = remarks.get("data", [])
        for remark in listed:
            click.echo(f"{kind}: {_remark(remark)}", err=True)
        if (more := remarks.get("total", 0) - len(listed)) > 0:
            click.echo(f"{more:,} more {kind}s are not listed", err=True)


def _remark(remark: Mapping[str, Any]) -> str:
    line = "" if remark.get("line") is None else f"line {remark['line']}: "
    field = f"{remark['field']}: " if remark.get("field") else ""
    return f"{line}{field}{output.as_options(str(remark.get('message')))}"
