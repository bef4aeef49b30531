"""Structured logs and metrics. A log line never holds a byte of a prompt: of an error
that is not promptmill's own only the type and the places it passed are written, since
messages of libraries quote the data they choke on."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from promptmill import errors

OURS = ("promptmill", "api", "worker")  # everything else is heard from WARNING on
FRAMES = 12  # innermost places of an error
SAFE = (errors.Unavailable, errors.SettingInvalid, OSError)  # say where and what, quote nothing
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, service, pid, logger, event, the record's
    extras, and for an error its type and places."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _moment(record.created),
            "level": record.levelname.lower(),
            "service": self._service,
            "pid": os.getpid(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= {k: v for k, v in vars(record).items() if k not in _STANDARD and k not in line}
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = describe(record.exc_info[1])
        return json.dumps(line, default=str, ensure_ascii=False)


def _moment(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"


def describe(error: BaseException) -> dict[str, Any]:
    """An error without what it may quote: type, places (innermost last), cause; the
    message only where it is known to hold no data."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    said: dict[str, Any] = {
        "type": type(error).__qualname__,
        "at": [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames],
    }
    if isinstance(error, SAFE):
        said["message"] = str(error)
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        said["cause"] = describe(cause)
    return said


def configure(service: str, level: str) -> None:
    """Makes this process log JSON lines to standard error, and keeps Celery from setting
    up logging of its own. Raises `errors.SettingInvalid`."""
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise errors.SettingInvalid(
            f"PROMPTMILL_LOG_LEVEL={level!r} must be DEBUG, INFO, WARNING, ERROR or CRITICAL",
            param="PROMPTMILL_LOG_LEVEL",
        )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))
    for name in OURS:
        logging.getLogger(name).setLevel(number)
    _keep_celery_out()


def _keep_celery_out() -> None:
    from celery import signals

    signals.setup_logging.connect(_already_set_up, weak=False, dispatch_uid="promptmill")


def _already_set_up(**_: Any) -> None:
    """Celery configures no logging while this signal has a listener."""


class _OnScrape(Collector):
    def __init__(
        self, name: str, text: str, labels: Sequence[str], read: Callable[[], _Values]
    ) -> None:
        self._head = (name, text, tuple(labels))
        self._read = read

    def describe(self) -> Iterator[Metric]:
        yield self._family()

    def collect(self) -> Iterator[Metric]:
        """Nothing at all while what is read is out of reach: a gap is honest, a zero is
        not."""
        family = self._family()
        try:
            values = self._read()
        except errors.Unavailable:
            return
        for labels, value in values.items():
            family.add_metric(labels, value)
        yield family

    def _family(self) -> GaugeMetricFamily:
        name, text, labels = self._head
        return GaugeMetricFamily(name, text, labels=labels)


_Values = Mapping[tuple[str, ...], float]


def on_scrape(
    name: str,
    text: str,
    *,
    labels: Sequence[str] = (),
    read: Callable[[], _Values],
    registry: CollectorRegistry,
) -> Callable[[], None]:
    """A gauge whose values are read when Prometheus asks: `read` returns label values →
    value (`{(): x}` without labels). Returns what takes it off again."""
    collector = _OnScrape(name, text, labels, read)
    registry.register(collector)
    return lambda: registry.unregister(collector)
