"""Commands that look at jobs and steer them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import click

from promptmill.cli import connection, output, progress
from promptmill.client import Job

STATES = ("queued", "paused", "cancelling", "cancelled", "completed", "failed", "expired")


def follow(job: Job, check: Callable[[], None] = lambda: None) -> Job:
    """Waits for `job` with a meter. check: called now and then, may raise."""
    with progress.meter(job.id, "images") as bar:

        def step(now: Job) -> None:
            check()
            progress.show_job(bar, now)

        return job.wait(step)


def verdict(job: Job) -> int:
    """Says how a finished job ended; the exit code."""
    counts = job.counts
    line = f"{job.id}: {job.state}, {counts.done:,} of {counts.total:,} images done"
    if counts.failed:
        line += f", {counts.failed:,} failed (`promptmill images {job.id} --state failed`)"
    click.echo(line, err=True)
    return 0 if job.succeeded else 1


def print_job(job: Job) -> None:
    data, counts = job.data, job.counts
    parts = {"done": counts.done, "failed": counts.failed, "cancelled": counts.cancelled}
    parts["queued"] = counts.queued
    shown = ", ".join(f"{count:,} {name}" for name, count in parts.items() if count)
    output.print_fields(
        {
            "id": job.id,
            "name": data.get("name"),
            "model": data.get("model"),
            "state": job.state,
            "images": f"{counts.total:,} ({shown})" if shown else f"{counts.total:,}",
            "rate": progress.speed(job.rate, "images") if job.rate else None,
            "time left": None if job.eta is None else output.duration(job.eta),
            "priority": data.get("priority"),
            "created": output.moment(data.get("created_at")),
            "started": _moment(data.get("started_at")),
            "finished": _moment(data.get("finished_at")),
            "error": data.get("error"),
            "fingerprint": data.get("fingerprint"),
            "notice": data.get("notice"),
        }
    )


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else output.moment(seconds)


@click.command("jobs")
@click.option("--state", type=click.Choice(STATES), help="Only jobs in this state.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
@output.as_json
def jobs_(state: str | None, limit: int, json_: bool) -> None:
    """List your jobs, newest first."""
    with connection.farm() as client:
        found = list(itertools.islice(client.jobs(state=state), limit))
    if json_:
        for job in found:
            output.print_json(job.data)
        return
    heads = ("id", "name", "model", "state", "done", "failed", "age")
    output.print_table(heads, map(_row, found), giving=("model", "name"))


def _row(job: Job) -> Sequence[object]:
    counts, data = job.counts, job.data
    name = output.shorten(str(data.get("name") or ""), 40)
    done = f"{counts.done:,}/{counts.total:,}"
    age = output.age(data.get("created_at"))
    return (job.id, name, data.get("model"), job.state, done, counts.failed, age)


@click.command()
@click.argument("job")
@output.as_json
def show(job: str, json_: bool) -> None:
    """Show a job: state, counts, rate, time left, errors."""
    with connection.farm() as client:
        found = client.job(job)
    if json_:
        output.print_json(found.data)
    else:
        print_job(found)


@click.command()
@click.argument("job")
@output.as_json
def watch(job: str, json_: bool) -> int:
    """Follow a job to its end. Exit code 1 unless every image is done."""
    with connection.farm() as client:
        found = follow(client.job(job))
    if json_:
        output.print_json(found.data)
    return verdict(found)


def _told(job: Job, json_: bool) -> None:
    if json_:
        output.print_json(job.data)
    else:
        click.echo(f"{job.id}: {job.state}")


@click.command()
@click.argument("job")
@output.as_json
def cancel(job: str, json_: bool) -> None:
    """Cancel a job; what is done stays."""
    with connection.farm() as client:
        _told(client.job(job).cancel(), json_)


@click.command()
@click.argument("job")
@output.as_json
def pause(job: str, json_: bool) -> None:
    """Pause a job; nothing of it renders until `resume`."""
    with connection.farm() as client:
        _told(client.job(job).pause(), json_)


@click.command()
@click.argument("job")
@output.as_json
def resume(job: str, json_: bool) -> None:
    """Let a paused job go on."""
    with connection.farm() as client:
        _told(client.job(job).resume(), json_)


def _nothing_to_retry(
    job: Job, failed: Mapping[str, int], codes: Sequence[str], json_: bool
) -> int:
    """A code that no image failed with is a mistake; a job without failures is none."""
    if json_:
        output.print_json(job.data)
    told = ", ".join(f"{count:,} {code}" for code, count in failed.items())
    if not failed:
        click.echo(f"{job.id}: no image failed, nothing to retry", err=True)
        return 0
    wanted = " or ".join(codes)
    click.echo(f"{job.id}: no image failed with code {wanted}; failed: {told}", err=True)
    return 1


@click.command()
@click.argument("job")
@click.option("--code", "codes", multiple=True, help="Only images that failed with this code.")
@click.option("--watch", is_flag=True, help="Follow the job to its end.")
@output.as_json
def retry(job: str, codes: Sequence[str], watch: bool, json_: bool) -> int:
    """Render a job's failed images again, with the same seeds."""
    with connection.farm() as client:
        found = client.job(job)
        failed = found.failures()
        found.retry(codes)
        if not found.retried:
            return _nothing_to_retry(found, failed, codes, json_)
        if not json_:
            what = "image" if found.retried == 1 else "images"
            click.echo(f"{job}: {found.retried:,} {what} queued again", err=True)
        if not watch:
            _told(found, json_)
            return 0
        follow(found)
    if json_:
        output.print_json(found.data)
    return verdict(found)


@click.command()
@click.argument("job")
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(job: str, yes: bool) -> None:
    """Delete a job with its images; a live one is cancelled first."""
    with connection.farm() as client:
        found = client.job(job)
        if not yes:
            done = found.counts.done
            click.confirm(f"Delete {job} and its {done:,} images?", abort=True, err=True)
        found.delete()
    click.echo(f"{job}: deleted")
