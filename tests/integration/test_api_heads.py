"""HEAD says what GET would, and sends nothing of it."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import pytest

from api import feed
from tests.integration.api_farm import ApiFarm

pytestmark = pytest.mark.servers

KEPT = ("content-type", "etag", "content-disposition", "cache-control")


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[ApiFarm]:
    with ApiFarm(tmp_path_factory.mktemp("farm"), valkey_url) as served:
        yield served


@pytest.fixture(scope="module")
def job(farm: ApiFarm) -> str:
    id: str = farm.submit([f"a heart {n}" for n in range(40)])["id"]
    farm.worker.report()
    assert farm.worker.drain() == 40
    return id


@pytest.mark.parametrize(
    "path",
    [
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/",
        "/v1/workers",
        "/v1/models",
        "/v1/jobs",
        "/v1/jobs/JOB",
        "/v1/jobs/JOB/images?limit=3",
        "/v1/jobs/JOB/images/0",
        "/v1/jobs/JOB/images/0/content",
        "/v1/jobs/JOB/archive",
        "/v1/jobs/JOB/manifest",
        "/v1/jobs/job_unknown",
    ],
)
def test_head_is_get_without_the_body(farm: ApiFarm, job: str, path: str) -> None:
    path = path.replace("JOB", job)
    with farm.http.stream("GET", path) as got:
        told = {name: got.headers.get(name) for name in KEPT}
    asked = farm.http.head(path)
    assert asked.status_code == got.status_code and asked.content == b""
    assert {name: asked.headers.get(name) for name in KEPT} == told
    assert ("content-length" in asked.headers) == ("content-length" in got.headers)


def test_a_connection_goes_on_after_it(farm: ApiFarm, job: str) -> None:
    """Nothing is left on the wire that the next answer would begin with."""
    host, port = farm.socket.getsockname()
    wire = http.client.HTTPConnection(host, port, timeout=10)
    for method in ("HEAD", "GET", "HEAD", "GET"):
        for path in (f"/v1/jobs/{job}", f"/v1/jobs/{job}/archive", "/v1/jobs"):
            wire.request(method, path)
            answer = wire.getresponse()
            body = answer.read()
            assert answer.status == 200 and bool(body) == (method == "GET"), (method, path)
    wire.close()


def test_a_stream_that_would_not_end_does(farm: ApiFarm) -> None:
    """More of them than may be open at once: each is closed where it was opened."""
    waiting = farm.submit(["never drawn"])["id"]
    for _ in range(feed.STREAMS + 2):
        answer = farm.http.head(f"/v1/jobs/{waiting}/events", timeout=10)
        assert answer.status_code == 200 and answer.content == b""
        assert answer.headers["content-type"].startswith("text/event-stream")


def test_what_is_only_posted_has_no_head(farm: ApiFarm) -> None:
    answer = farm.http.head("/v1/images/generations")
    assert answer.status_code == 405 and answer.content == b""


def test_requests_are_counted_as_what_they_are(farm: ApiFarm) -> None:
    farm.http.head("/healthz")
    counted = farm.http.get("/metrics").text
    assert 'method="HEAD",route="/healthz",status="200"' in counted
