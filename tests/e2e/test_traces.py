"""Processes of a farm that end tell the collector of what they did last."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptmill import traces
from tests.e2e.farm import Farm
from tests.integration.collector import collecting
from tests.servers import wait_until

pytestmark = pytest.mark.servers


def test_what_was_not_sent_before_is_sent_at_the_end(tmp_path: Path, valkey_url: str) -> None:
    with (
        collecting() as collector,
        Farm(
            tmp_path,
            PROMPTMILL_REDIS_URL=valkey_url,
            PROMPTMILL_OTEL_ENDPOINT=collector.url,
            OTEL_BSP_SCHEDULE_DELAY="600000",
        ) as farm,
    ):
        farm.start()
        job = farm.submit(["a pear"] * 4)["id"]
        wait_until(lambda: farm.job(job)["state"] == "completed", seconds=60, what="it is done")
        assert not collector.posts
        for process in farm.processes:
            assert process.stop() == 0
        trace_id, _ = traces.ids_of(job)
        told = {
            (service, span.name)
            for service, span in collector.told()
            if int.from_bytes(span.trace_id) == trace_id
        }
    assert told >= {
        ("promptmill-api", "job"),
        ("promptmill-worker", "micro-batch"),
        ("promptmill-control", "job.ended"),
    }
