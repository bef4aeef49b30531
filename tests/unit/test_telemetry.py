"""Log lines are JSON, and quote nothing; metrics are read when asked for."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from promptmill import errors, telemetry

SECRET = "a very private prompt"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    levels = {name: logging.getLogger(name).level for name in telemetry.OURS}
    yield
    root.handlers[:], level = before
    root.setLevel(level)
    for name, was in levels.items():
        logging.getLogger(name).setLevel(was)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_is_json_with_its_extras(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("worker", "info")
    logging.getLogger("worker.engine").info("lease %s", "l1", extra={"count": 3})
    logging.getLogger("worker.engine").debug("not heard")
    [line] = lines(capsys)
    assert line["event"] == "lease l1"
    assert (line["service"], line["level"], line["count"]) == ("worker", "info", 3)


def test_libraries_are_heard_from_warning_on(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("api", "DEBUG")
    logging.getLogger("botocore").info("chatter")
    logging.getLogger("botocore").warning("trouble")
    logging.getLogger("api.routes").debug("ours")
    assert [line["event"] for line in lines(capsys)] == ["trouble", "ours"]


def test_an_error_is_told_without_what_it_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("api", "INFO")
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as cause:
            raise ValueError(f"bad row: {SECRET}") from cause
    except ValueError:
        logging.getLogger("api").exception("request failed")
    text = capsys.readouterr().err
    assert SECRET not in text
    told = json.loads(text)["error"]
    assert told["type"] == "ValueError"
    assert told["cause"]["type"] == "KeyError"
    assert told["at"][-1].startswith("test_telemetry.py:")


def test_outages_keep_their_message(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("api", "INFO")
    try:
        raise errors.RedisDown
    except errors.RedisDown:
        logging.getLogger("api").exception("waiting")
    [line] = lines(capsys)
    assert "PROMPTMILL_REDIS_URL" in line["error"]["message"]  # type: ignore[index]


def test_an_unknown_level_names_the_setting() -> None:
    with pytest.raises(errors.SettingInvalid, match="PROMPTMILL_LOG_LEVEL"):
        telemetry.configure("api", "LOUD")


def test_celery_leaves_logging_alone(capsys: pytest.CaptureFixture[str]) -> None:
    from celery import Celery

    telemetry.configure("worker", "INFO")
    handlers = list(logging.getLogger().handlers)
    app = Celery("x", broker="memory://")
    app.log.setup(loglevel=logging.DEBUG)
    assert logging.getLogger().handlers == handlers


def test_gauges_are_read_at_each_scrape_and_absent_in_an_outage() -> None:
    registry = CollectorRegistry()
    left: dict[tuple[str, ...], float] = {("emoji",): 3.0}

    def read() -> dict[tuple[str, ...], float]:
        if not left:
            raise errors.RedisDown
        return dict(left)

    remove = telemetry.on_scrape(
        "promptmill_work_seconds", "Work left.", labels=["model"], read=read, registry=registry
    )
    assert b'promptmill_work_seconds{model="emoji"} 3.0' in generate_latest(registry)
    left[("emoji",)] = 4.0
    assert b'promptmill_work_seconds{model="emoji"} 4.0' in generate_latest(registry)
    left.clear()
    assert b"promptmill_work_seconds{" not in generate_latest(registry)
    remove()
    assert generate_latest(registry) == b""
