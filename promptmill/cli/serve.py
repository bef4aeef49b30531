"""Commands that are the farm's processes, and those that touch its database."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import click

from promptmill import children, datafolder, errors, garbage, settings, valkey
from promptmill.cli import output

SCOPES = ("read", "submit", "manage", "metrics")  # `store.tenants.Scope`: here there may be none
USUAL = SCOPES[:3]


def part(target: str, *, extra: str) -> Any:
    """`module:name`, imported now: the shared core knows no more of the API and the worker
    than these names. Raises `errors.Error` naming the extra that is not installed."""
    module, _, name = target.partition(":")
    try:
        with garbage.kept():
            return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as exc:
        if exc.name and exc.name.split(".")[0] in ("api", "worker", "promptmill"):
            raise errors.Error(f"{exc.name} is missing from this installation") from exc
        raise errors.Error(
            f"{exc.name} is not installed: pip install 'promptmill[{extra}]'"
        ) from exc


def chosen(**given: Any) -> settings.Settings:
    """The settings, with what was given on the command line."""
    return replace(
        valkey.prepared(settings.read()), **{k: v for k, v in given.items() if v is not None}
    )


@click.command()
@click.option("--host")
@click.option("--port", type=click.IntRange(1, 65535))
def api(host: str | None, port: int | None) -> int:
    """Run the API server."""
    datafolder.require_farm(settings.read())
    serve: Callable[[settings.Settings], int | None] = part("api.app:serve", extra="api")
    return serve(chosen(host=host, port=port)) or 0


@click.command()
@click.option("--model", help="The model that this worker serves.")
def worker(model: str | None) -> int:
    """Run a worker: one process per device, one model. Exit status 2: a setting is refused."""
    try:
        datafolder.require_farm(settings.read())
        run: Callable[[settings.Settings], int] = part("worker.app:run", extra="worker")
        return run(chosen(model=model))
    except errors.Error as error:
        if not error.refuses:
            raise
        click.echo(f"promptmill: {' '.join(str(error).split())}", err=True)
        return children.REFUSED


@click.command()
def control() -> int:
    """Run control: repairs, completion, webhooks, housekeeping."""
    datafolder.require_farm(settings.read())
    run: Callable[[settings.Settings], int] = part("worker.control.app:run", extra="core")
    return run(chosen())


def database() -> Any:
    """The farm's database. Raises `errors.DatabaseDown` where there is none yet."""
    given = settings.read()
    datafolder.require_farm(given)
    return part("promptmill.store.database:Database", extra="core")(given.database)


def queue(given: settings.Settings, model: str | None = None) -> Any:
    """The scheduler of a model, else of the one that is set. Asks the server nothing."""
    adapter = part("promptmill.redis_queue:RedisQueue", extra="core")
    return adapter(given.redis, model or given.model_name)


def _look_at_redis(given: settings.Settings) -> None:
    queue(given).ping()


def _look_at_storage(given: settings.Settings) -> None:
    part("promptmill.blobs:open_store", extra="core")(given).probe()


def _look_at_model(given: settings.Settings) -> None:
    """Device and quantization only where they may be refused: it can take an import of torch."""
    create = part("worker.generators.registry:create", extra="worker")
    generator = create(given.model, given.model_options)
    if given.quantization != "auto" or given.device not in ("auto", "cpu"):
        generator.resolve(device=given.device, quantization=given.quantization)


LOOKS: Mapping[str, Callable[[settings.Settings], None]] = {
    "redis": _look_at_redis,
    "storage": _look_at_storage,
    "model": _look_at_model,
}


@click.command()
@click.option(
    "--first",
    "firsts",
    multiple=True,
    type=click.Choice(list(LOOKS)),
    help="Look at this before, and leave the database alone where it is out of reach or unknown;"
    " repeatable.",
)
def migrate(firsts: Sequence[str]) -> None:
    """Bring the database to the current schema and register the built-in models."""
    given = chosen()
    for name in firsts:
        LOOKS[name](given)
    db = part("promptmill.store.database:Database", extra="core")(given.database)
    try:
        db.migrate()
        part("promptmill.store.tenants:ensure_default", extra="core")(db)
        add = part("promptmill.store.models:add", extra="core")
        for model in part("worker.generators.registry:seeds", extra="worker")():
            add(db, model)
    finally:
        db.close()
    click.echo("the database is at the current schema")


@click.group()
def keys() -> None:
    """API keys, for PROMPTMILL_AUTH=keys."""


@keys.command("create")
@click.argument("tenant")
@click.option("--weight", type=click.FloatRange(0.001), help="TENANT's share; at first 1.")
@click.option("--max-queued", type=click.IntRange(1), help="TENANT's images waiting at most.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(SCOPES),
    help="What the key may do, repeatable: look; make new things; change and delete what is"
    " there, also export, verify, retry; read /metrics. Default: all but the last.",
)
@output.as_json
def create_key(
    tenant: str,
    *,
    weight: float | None,
    max_queued: int | None,
    scopes: tuple[str, ...],
    json_: bool,
) -> None:
    """Make a key for TENANT, and TENANT if it is new. A known one's share and limit are changed
    where they are given, for jobs from then on. The key is shown once."""
    db = database()
    try:
        create = part("promptmill.store.tenants:create_key", extra="core")
        key_id, secret = create(
            db, tenant, weight=weight, max_queued=max_queued, scopes=scopes or USUAL
        )
    finally:
        db.close()
    if json_:
        told = {"id": key_id, "tenant": tenant, "scopes": _in_order(scopes or USUAL), "key": secret}
        output.print_json(told)
    else:
        click.echo(secret)
        click.echo(f"{key_id} of {tenant}: set PROMPTMILL_API_KEY; shown this once", err=True)


@keys.command("list")
@output.as_json
def list_keys(json_: bool) -> None:
    """List all keys; the secrets are not kept."""
    db = database()
    try:
        found = part("promptmill.store.tenants:list_keys", extra="core")(db)
    finally:
        db.close()
    names = ("id", "tenant", "prefix", "created_at", "revoked_at")
    if json_:
        for key in found:
            told = {name: getattr(key, name) for name in names}
            output.print_json({**told, "scopes": _in_order(key.scopes)})
        return
    output.print_table(
        ("id", "tenant", "prefix", "scopes", "created", "revoked"),
        (
            (
                *(k.id, k.tenant, k.prefix, " ".join(_in_order(k.scopes))),
                *(output.moment(k.created_at), output.moment(k.revoked_at)),
            )
            for k in found
        ),
    )


def _in_order(scopes: Collection[str]) -> list[str]:
    return [scope for scope in SCOPES if scope in scopes]


@keys.command("revoke")
@click.argument("key_id", metavar="KEY")
def revoke_key(key_id: str) -> None:
    """Revoke a key, by its id."""
    db = database()
    try:
        if not part("promptmill.store.tenants:revoke_key", extra="core")(db, key_id):
            raise errors.NotFound(f"there is no key {key_id}: see `promptmill keys list`")
    finally:
        db.close()
    click.echo(f"{key_id}: revoked")
