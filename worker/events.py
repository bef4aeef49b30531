"""Celery task events, one life per micro-batch, so that Flower and `celery events` show
real work. Best effort: a broker that is slow or gone costs events, never a picture."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError

log = logging.getLogger(__name__)
NAME = "promptmill.render"


class TaskEvents:
    """Sends from a thread of its own; `wanted` says whether anybody watches."""

    def __init__(self, app: Celery, hostname: str, wanted: Callable[[], bool]) -> None:
        self._app = app
        self._hostname = hostname
        self._wanted = wanted
        self._waiting: queue.Queue[tuple[str, dict[str, Any]] | None] = queue.Queue(1000)
        self._thread = threading.Thread(target=self._send_all, name="events", daemon=True)
        self._thread.start()

    def begun(self, lease: str, details: Mapping[str, Any]) -> None:
        """details: bucket, count and jobs of the micro-batch."""
        self._put("task-received", uuid=lease, name=NAME, args="()", kwargs=repr(dict(details)))
        self._put("task-started", uuid=lease)

    def ended(self, lease: str, *, seconds: float, result: str) -> None:
        self._put("task-succeeded", uuid=lease, runtime=seconds, result=result)

    def given_back(self, lease: str, reason: str) -> None:
        self._put("task-retried", uuid=lease, exception=reason, traceback="")

    def close(self) -> None:
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(timeout=1)

    def _put(self, type: str, **fields: Any) -> None:
        if not self._wanted():
            return
        try:
            self._waiting.put_nowait((type, fields))
        except queue.Full:
            log.debug("event dropped: the broker is slow")

    def _send_all(self) -> None:
        with self._app.connection_for_write() as connection:
            broken: tuple[type[BaseException], ...] = (
                OperationalError,
                OSError,
                *connection.connection_errors,
            )
            dispatcher = self._app.events.Dispatcher(connection, hostname=self._hostname)
            while (event := self._waiting.get()) is not None:
                try:
                    dispatcher.send(event[0], **event[1])
                except broken:
                    log.debug("event dropped: the broker is gone")
