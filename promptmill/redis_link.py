"""The connection to Redis and the Lua scripts beside this file: loads them, calls them,
turns trouble with the server into `errors.RedisDown`. Knows nothing of lanes or leases."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from promptmill import errors

CONNECT_SECONDS = 2.0
REPLY_SECONDS = 5.0
# What a server says that will take commands again, as the client's own errors and as words.
_PASSING = (
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.MasterDownError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
)
_PASSING_WORD = re.compile(r"\b(BUSY|MISCONF|NOREPLICAS|OOM|READONLY|MASTERDOWN|CLUSTERDOWN) ")


def script_text(name: str) -> str:
    """The script `lua/<name>.lua` behind the prelude that all scripts share."""
    folder = resources.files("promptmill") / "lua"
    prelude = (folder / "prelude.lua").read_text(encoding="utf-8")
    return prelude + (folder / f"{name}.lua").read_text(encoding="utf-8")


def connect(url: str) -> redis.Redis:
    """A thread-safe client for a unix://, redis:// or rediss:// URL; no call is made yet.
    A command whose connection broke is sent once more: every script may run twice."""
    return redis.Redis.from_url(
        url,
        decode_responses=True,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=REPLY_SECONDS,
        retry=Retry(NoBackoff(), 1),
    )


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Raises `errors.RedisDown` for a server that is gone, mute, read-only, full, busy or cut off
    from those that it needs."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, *_PASSING) as error:
        raise down(url, error) from error
    except redis.ResponseError as error:
        if _PASSING_WORD.search(str(error)):
            raise down(url, error) from error
        raise


def down(url: str, error: Exception) -> errors.RedisDown:
    """The error for `url`, without its password."""
    parts = urlsplit(url)
    place = parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"
    return errors.RedisDown(
        f"Redis is out of reach at {place} ({error}): check PROMPTMILL_REDIS_URL"
    )


class Link:
    """One pool of connections to the server at `url` and the scripts run on it for the keys
    under `prefix`. Thread-safe; scripts are sent again when the server has forgotten them."""

    def __init__(self, url: str, *, prefix: str) -> None:
        self.url = url
        self.prefix = prefix
        self._client = connect(url)
        self._scripts = {
            file.name.removesuffix(".lua"): self._client.register_script(
                script_text(file.name.removesuffix(".lua"))
            )
            for file in (resources.files("promptmill") / "lua").iterdir()
            if file.name.endswith(".lua") and file.name != "prelude.lua"
        }

    def run(self, script: str, *args: str | int | float) -> Any:
        """Runs `lua/<script>.lua` with these arguments and returns its reply."""
        with translated(self.url):
            return self._scripts[script](keys=[self.prefix], args=args)

    @contextmanager
    def client(self) -> Iterator[Any]:
        """The plain client, its troubles translated."""
        with translated(self.url):
            yield self._client

    def close(self) -> None:
        self._client.close()
        self._client.connection_pool.disconnect()
