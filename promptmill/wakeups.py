"""The Celery app and its wake-ups: messages that say "there may be work for this model" and
nothing else. A lost, doubled or late one costs latency, never work."""

from __future__ import annotations

import logging
import time
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import kombu.exceptions
import redis.exceptions
from celery import Celery
from kombu import Connection, pools

from promptmill import errors
from promptmill.queue import Queue
from promptmill.settings import Settings

log = logging.getLogger("promptmill.wakeups")

TASK = "promptmill.wake"
PREFIX = "cel:"  # Celery's keys, apart from those of the queue
EXPIRES = 60.0  # seconds; an older wake-up has nothing to say
STALE_SECONDS = 0.2  # a connection that fails so soon had ended before
SEND_SECONDS = 1.0  # a broker that is mute holds up the caller twice this at most

BROKER_OPTIONS: dict[str, Any] = {
    "visibility_timeout": 120,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "socket_timeout": 10,  # without it a half-open connection is deaf for ever
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 10,
    "global_keyprefix": PREFIX,
}
# A wake-up is not worth waiting for: one try, briefly.
SENDER_OPTIONS = BROKER_OPTIONS | {
    "socket_timeout": SEND_SECONDS,
    "socket_connect_timeout": SEND_SECONDS,
    "health_check_interval": 0,
    "max_retries": 0,
}


def queue_name(model: str) -> str:
    """The Celery queue of a model's wake-ups: direct, on the default exchange, so that a
    flushed broker loses no binding."""
    return f"gpu.{model}"


def broker_url(redis_url: str) -> str:
    """Celery's form of the URL: a unix socket is redis+socket://PATH?virtual_host=DB."""
    parts = urlsplit(redis_url)
    if parts.scheme != "unix":
        return redis_url
    database = parse_qs(parts.query).get("db", ["0"])[0]
    account = parts.netloc.rpartition("@")[0]
    login = f"{account}@" if account else ""
    return f"redis+socket://{login}{quote(parts.path)}?virtual_host={database}"


def celery_app(settings: Settings) -> Celery:
    """The app that API, control and workers share; no connection is made yet. JSON only, no
    results; workers send events once a monitor asks for them (Flower does by itself)."""
    app = Celery("promptmill", broker=broker_url(settings.redis))
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        event_serializer="json",
        task_acks_late=True,
        task_ignore_result=True,
        task_create_missing_queues=True,
        worker_prefetch_multiplier=1,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=dict(BROKER_OPTIONS),
        enable_utc=True,
    )
    return app


def wake(app: Celery, queue: Queue, model: str) -> int:
    """Sends a wake-up for each idle worker of `model`, less those that wait already; how
    many. Trouble with Redis is logged and returns 0, within about two seconds."""
    try:
        idle = sum(worker.get("state") == "idle" for worker in queue.workers())
        if not idle:
            return 0
        begun = time.monotonic()
        try:
            return _top_up(app, model, idle)
        except _BROKER_ERRORS:
            if time.monotonic() - begun > STALE_SECONDS:
                raise
            return _top_up(app, model, idle)  # the connection that was kept had ended
    except (errors.Unavailable, *_BROKER_ERRORS) as error:
        log.warning("no wake-up for %s: %s", model, error)
        return 0


_BROKER_ERRORS = (
    kombu.exceptions.OperationalError,
    kombu.exceptions.KombuError,
    redis.exceptions.RedisError,
    OSError,
)


def _top_up(app: Celery, model: str, wanted: int) -> int:
    """So many wake-ups wait, or more; how many were sent."""
    pool = pools.connections[Connection(app.conf.broker_url, transport_options=SENDER_OPTIONS)]
    connection = pool.acquire(block=True, timeout=SEND_SECONDS)
    try:
        waiting = _waiting(connection, queue_name(model))
        for _ in range(waiting, wanted):
            _send(app, connection, model)
    except BaseException:
        pool.replace(connection)
        raise
    connection.release()
    return max(0, wanted - waiting)


def _waiting(connection: Connection, name: str) -> int:
    """Wake-ups that no worker has taken yet."""
    channel: Any = connection.default_channel
    return int(channel.queue_declare(name).message_count)


def _send(app: Celery, connection: Connection, model: str) -> None:
    app.send_task(
        TASK,
        args=(model,),
        queue=queue_name(model),
        expires=EXPIRES,
        ignore_result=True,
        retry=False,
        connection=connection,
    )
