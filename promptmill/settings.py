"""Settings, read once from PROMPTMILL_* variables. An unknown or unparsable one stops the
start with its name; nothing else in the tree reads the environment for configuration."""

from __future__ import annotations

import difflib
import ipaddress
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import urlsplit

from promptmill import errors, models

PREFIX = "PROMPTMILL_"
CLIENT_ONLY = frozenset({"URL", "API_KEY"})
DATABASE = "promptmill.db"  # in the data folder


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting and its default; the README documents each by name.

    An empty `database_url`, `redis_url` or `storage_url` means the embedded default
    inside `data_dir`: SQLite, a unix socket of the embedded Valkey, a folder.
    """

    data_dir: Path = Path("promptmill-data")
    database_url: str = ""
    redis_url: str = ""
    storage_url: str = ""
    s3_endpoint_url: str = ""
    s3_public_endpoint_url: str = ""
    output_prefixes: str = ""
    source_prefixes: str = ""
    host: str = "127.0.0.1"
    port: int = 8000
    model: str = "emoji-gan"
    model_options: str = ""
    quantization: str = "auto"
    device: str = "auto"
    slots: int = 3
    recycle_bytes: int = 8_000_000_000
    prompt_blocklist: str = ""
    image_check: str = ""
    image_check_labels: str = "nsfw"
    image_check_threshold: float = 0.5
    auth: str = "off"
    lease_seconds: float = 30.0
    max_rows: int = 10_000_000
    max_body_bytes: int = 16_000_000_000
    max_line_bytes: int = 1_000_000
    max_queued_images_per_tenant: int = 50_000_000
    requests_per_second: float = 500.0
    retention_days: float = 0.0
    webhook_secret: str = ""
    webhook_networks: str = "public"
    otel_endpoint: str = ""
    log_level: str = "INFO"
    failpoints: str = ""

    def refuse_open_farm(self) -> None:
        """Raises `errors.SettingInvalid` for an API without keys that others could reach."""
        if self.auth == "off" and not is_loopback(self.host):
            raise errors.SettingInvalid(
                f"PROMPTMILL_AUTH=off would open the farm to everyone who reaches {self.host}: "
                "set PROMPTMILL_AUTH=keys, or PROMPTMILL_HOST=127.0.0.1",
                param="PROMPTMILL_AUTH",
            )

    @property
    def model_name(self) -> str:
        """The name that jobs call `model` by."""
        return models.served_name(self.model)

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / DATABASE}"

    @property
    def redis(self) -> str:
        return self.redis_url or f"unix://{self.data_dir.resolve() / 'redis.sock'}"

    @property
    def storage(self) -> str:
        return self.storage_url or f"file://{self.data_dir.resolve() / 'objects'}"


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, means this machine only."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _check(settings: Settings) -> Settings:
    if settings.auth not in ("off", "keys"):
        raise errors.SettingInvalid(f"{PREFIX}AUTH must be off or keys, not {settings.auth!r}")
    if settings.webhook_networks not in ("public", "any"):
        raise errors.SettingInvalid(f"{PREFIX}WEBHOOK_NETWORKS must be public or any")
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, int | float) and value < 0:
            raise errors.SettingInvalid(f"{PREFIX}{field.name.upper()} must not be negative")
    if settings.port > 65535:
        raise errors.SettingInvalid(f"{PREFIX}PORT must be at most 65535")
    _check_source_prefixes(settings.source_prefixes)
    if settings.lease_seconds < 1:
        raise errors.SettingInvalid(f"{PREFIX}LEASE_SECONDS must be at least 1")
    if not 2 <= settings.slots <= 16:
        raise errors.SettingInvalid(f"{PREFIX}SLOTS must be from 2 to 16")
    models.served_name(settings.model)
    for name, url, schemes in (
        ("DATABASE_URL", settings.database, ("sqlite", "postgresql", "postgres")),
        ("REDIS_URL", settings.redis, ("unix", "redis", "rediss")),
        ("STORAGE_URL", settings.storage, ("file", "s3")),
    ):
        try:
            scheme = urlsplit(url).scheme
        except ValueError:
            raise errors.SettingInvalid(f"{PREFIX}{name} is not a URL", param=name) from None
        if scheme.split("+")[0] not in schemes:
            raise errors.SettingInvalid(f"{PREFIX}{name} must start with one of {schemes}")
    _check_collector(settings.otel_endpoint)
    return settings


def _check_source_prefixes(given: str) -> None:
    """Below `jobs/` lie the pictures of every tenant."""
    for part in filter(None, (part.strip() for part in given.split(","))):
        whole = part.strip("/")
        if not whole or whole.split("/")[0] == "jobs":
            raise errors.SettingInvalid(
                f"{PREFIX}SOURCE_PREFIXES must not open {part!r} to tenants"
            )


def _check_collector(given: str) -> None:
    try:
        url = urlsplit(given)
        good = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        good = False
    if given and (not good or "?" in given or "#" in given):
        raise errors.SettingInvalid(
            f"{PREFIX}OTEL_ENDPOINT must be the base of a collector, http://collector:4318 "
            "(pip install 'promptmill[otel]')",
            param=f"{PREFIX}OTEL_ENDPOINT",
        )


def _amount(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


_PARSERS: Mapping[type, Callable[[str], Any]] = {int: int, float: _amount, str: str, Path: Path}


def read(environ: Mapping[str, str] | None = None) -> Settings:
    """Parses `environ` (default: the process's). Raises `errors.SettingInvalid`."""
    environ = os.environ if environ is None else environ
    kinds = get_type_hints(Settings)
    known = {f.name.upper(): kinds[f.name] for f in fields(Settings)}
    given: dict[str, Any] = {}
    for name, text in environ.items():
        if not name.startswith(PREFIX) or name.removeprefix(PREFIX) in CLIENT_ONLY:
            continue
        short = name.removeprefix(PREFIX)
        if short not in known:
            near = difflib.get_close_matches(short, known, 1)
            meant = f": did you mean {PREFIX}{near[0]}?" if near else ""
            raise errors.SettingInvalid(f"{name} is not a setting of promptmill{meant}", param=name)
        try:
            given[short.lower()] = _PARSERS[known[short]](text)
        except ValueError:
            kind = {int: "a whole number", float: "a number"}.get(known[short], "a path")
            raise errors.SettingInvalid(f"{name}={text!r} is not {kind}", param=name) from None
    return _check(Settings(**given))
