"""What a collector of traces is told of requests, jobs and micro-batches, and what it never is."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from api.app import create_app
from promptmill import errors, settings, traces
from promptmill.blobs import New, Stored
from promptmill.blobs.fake import MemoryBlobs
from promptmill.store import tenants
from tests.integration.api_farm import ApiFarm
from tests.integration.collector import Collector, attributes, collecting
from tests.integration.control_bench import Bench, bench
from tests.servers import free_port, wait_until
from worker.control.finaliser import Finaliser
from worker.control.queues import Queues
from worker.engine import Engine
from worker.generators.stub import Stub

pytestmark = pytest.mark.servers

SECRET = "a very private prompt"
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STEPS = ["fetch", "render", "encode", "put", "commit", "acknowledge"]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with collecting() as made:
        yield made


@pytest.fixture
def farm(tmp_path: Path, valkey_url: str, collector: Collector) -> Iterator[ApiFarm]:
    with ApiFarm(tmp_path, valkey_url, otel_endpoint=f"{collector.url}/", auth="keys") as made:
        made.key = tenants.create_key(made.db, "studio")[1]
        made.http.headers["authorization"] = f"Bearer {made.key}"
        yield made


@pytest.fixture
def farm_of_slots(tmp_path: Path, valkey_url: str) -> Iterator[Bench]:
    with bench(f"sqlite:///{tmp_path / 'slot.db'}", valkey_url, tmp_path) as made:
        yield made


@contextmanager
def rendering(farm: ApiFarm | Bench, tracing: traces.Traces) -> Iterator[Engine]:
    generator = Stub()
    generator.load(device="cpu", quantization="none")
    generator.name = farm.model
    engine = Engine(
        replace(farm.settings, model=farm.model),
        worker="w1",
        generator=generator,
        fingerprint="stub",
        db=farm.db,
        blobs=MemoryBlobs(),
        queue=farm.queue,
    )
    engine.outlast = lambda outage: None  # type: ignore[method-assign]
    engine.traces = tracing
    with closing(tracing):
        yield engine
    engine.pool.shutdown()


def carry(engine: Engine) -> str:
    """One micro-batch; the id of its lease."""
    slot = engine.slots[1]
    lease = engine.lease(slot)
    assert lease is not None
    slot.carry(lease)
    return lease.id


def refusing(error: Exception) -> Callable[[Sequence[New]], list[Stored]]:
    def refuse(objects: Sequence[New]) -> list[Stored]:
        raise error

    return refuse


def arrived(collector: Collector, name: str) -> Span:
    wait_until(lambda: collector.spans(name), seconds=10, what=f"{name} is told")
    return collector.one(name)


def test_a_request_goes_on_with_its_caller_s_trace(farm: ApiFarm, collector: Collector) -> None:
    answer = farm.http.get(f"/v1/jobs/{SECRET}?after={SECRET}", headers={"traceparent": CALLER})
    assert answer.status_code in (404, 422)
    span = arrived(collector, "GET /v1/jobs/{job_id}")
    _, trace_id, parent, _ = CALLER.split("-")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (trace_id, parent)
    assert span.kind == Span.SPAN_KIND_SERVER
    assert attributes(span) == {
        "http.request.method": "GET",
        "http.route": "/v1/jobs/{job_id}",
        "http.response.status_code": answer.status_code,
    }
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert {path for path, _ in collector.posts} == {"/v1/traces"}


def test_a_server_s_error_is_an_error_without_its_words(
    farm: ApiFarm, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError(SECRET)

    monkeypatch.setattr("api.routes.jobs.stored_jobs.page", broken)
    assert farm.http.get("/v1/jobs", headers={"traceparent": "nonsense"}).status_code == 500
    span = arrived(collector, "GET /v1/jobs")
    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "")
    assert not span.parent_span_id
    assert SECRET.encode() not in collector.sent


def test_what_has_no_route_has_no_name(farm: ApiFarm, collector: Collector) -> None:
    assert farm.http.get("/nowhere/at/all").status_code == 404
    assert "http.route" not in attributes(arrived(collector, "GET"))


def test_a_stream_ends_its_span_at_its_head(farm: ApiFarm, collector: Collector) -> None:
    job = farm.submit(["never rendered"])["id"]
    with farm.http.stream("GET", f"/v1/jobs/{job}/events"):
        arrived(collector, "GET /v1/jobs/{job_id}/events")


def test_a_job_is_one_trace_from_the_request_to_its_end(
    farm: ApiFarm, collector: Collector
) -> None:
    before = time.time_ns()
    job = farm.submit([SECRET] * 4, name=SECRET)["id"]
    with rendering(farm, traces.configure("worker", collector.url)) as engine:
        lease = carry(engine)
    queues = Queues(farm.db, lambda _: farm.queue)
    with closing(traces.configure("control", collector.url)) as tracing:
        assert Finaliser(farm.db, queues, farm.settings, traces=tracing).step() == 1
    root, request = arrived(collector, "job"), arrived(collector, "POST /v1/jobs")
    batch, ended = collector.one("micro-batch"), collector.one("job.ended")

    trace_id, span_id = traces.ids_of(job)
    assert int.from_bytes(root.trace_id) == trace_id
    assert int.from_bytes(root.span_id) == span_id
    assert not root.parent_span_id
    assert [link.span_id for link in root.links] == [request.span_id]
    assert before <= root.start_time_unix_nano <= root.end_time_unix_nano <= time.time_ns()
    assert attributes(root) == {
        "promptmill.job": job,
        "promptmill.images": 4,
        "promptmill.model": farm.model,
        "promptmill.tenant": "studio",
    }
    for child in (batch, ended):
        assert (child.trace_id, child.parent_span_id) == (root.trace_id, root.span_id)
    assert batch.kind == Span.SPAN_KIND_CONSUMER
    told = attributes(batch)
    assert (told["promptmill.images"], told["promptmill.jobs"]) == (4, [job])
    assert (told["promptmill.worker"], told["messaging.message.id"]) == ("w1", lease)
    assert "width=64" in told["promptmill.bucket"]
    assert attributes(ended)["promptmill.state"] == "completed"

    steps = [span for _, span in collector.told() if span.parent_span_id == batch.span_id]
    steps.sort(key=lambda span: span.start_time_unix_nano)
    assert [span.name for span in steps] == STEPS
    edges = [batch.start_time_unix_nano, *(span.end_time_unix_nano for span in steps)]
    assert [span.start_time_unix_nano for span in steps] == edges[:-1]
    assert edges[-1] <= batch.end_time_unix_nano

    assert {service for service, _ in collector.told()} == {
        f"promptmill-{name}" for name in ("api", "worker", "control")
    }
    for hidden in (SECRET, SECRET.replace(" ", "+"), farm.key):
        assert hidden.encode() not in collector.sent


def test_a_verification_is_a_job_like_any(farm: ApiFarm, collector: Collector) -> None:
    job = farm.submit(["a pear"])["id"]
    farm.worker.drain()
    again = farm.http.post(f"/v1/jobs/{job}/verify").json()["id"]
    wait_until(lambda: len(collector.spans("job")) == 2, seconds=10, what="both are told")
    assert {attributes(span)["promptmill.job"] for span in collector.spans("job")} == {job, again}


def test_a_replay_is_no_second_job(farm: ApiFarm, collector: Collector) -> None:
    for _ in range(2):
        answer = farm.post_rows(["a pear"], headers={"idempotency-key": "k1"})
        assert answer.status_code == 202
    wait_until(lambda: len(collector.spans("POST /v1/jobs")) == 2, seconds=10, what="both are told")
    assert len(collector.spans("job")) == 1


def test_a_micro_batch_of_several_jobs_links_to_each(
    farm_of_slots: Bench, collector: Collector
) -> None:
    jobs = [farm_of_slots.submit(2).public_id for _ in range(3)]
    with rendering(farm_of_slots, traces.configure("worker", collector.url)) as engine:
        carry(engine)
    batch = collector.one("micro-batch")
    assert not batch.parent_span_id
    assert attributes(batch)["promptmill.jobs"] == sorted(jobs)
    links = {(int.from_bytes(one.trace_id), int.from_bytes(one.span_id)) for one in batch.links}
    assert links == {traces.ids_of(job) for job in jobs}


def test_of_a_job_all_is_told_or_nothing(
    farm_of_slots: Bench, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    jobs = [farm_of_slots.submit(1) for _ in range(24)]
    chosen = {one.public_id for one in jobs if traces.ids_of(one.public_id)[0] % 2**64 < 2**63}
    with closing(traces.configure("api", collector.url)) as api:
        for job in jobs:
            api.accepted(job, tenant=None)
    with closing(traces.configure("control", collector.url)) as control:
        for job in jobs:
            control.ended(job)
    for name in ("job", "job.ended"):
        told = collector.spans(name)
        assert {attributes(span)["promptmill.job"] for span in told} == chosen
    assert 0 < len(chosen) < len(jobs)


@pytest.mark.parametrize("error", [KeyError(SECRET), errors.StorageDown(SECRET)])
def test_a_failed_micro_batch_tells_only_the_type(
    farm_of_slots: Bench,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    monkeypatch.setattr("worker.insistence.KEPT", 0.0)
    farm_of_slots.submit(4)
    with rendering(farm_of_slots, traces.configure("worker", collector.url)) as engine:
        monkeypatch.setattr(engine.blobs, "create_many", refusing(error))
        carry(engine)
    batch, kind = collector.one("micro-batch"), type(error).__name__
    assert (batch.status.code, batch.status.message) == (Status.STATUS_CODE_ERROR, kind)
    assert attributes(batch)["error.type"] == kind
    names = {span.name for _, span in collector.told()}
    assert names == {"micro-batch", *STEPS[: STEPS.index("put")]}
    assert SECRET.encode() not in collector.sent


def test_a_collector_that_is_away_holds_nobody_up(farm_of_slots: Bench) -> None:
    job = farm_of_slots.submit(4)
    away = traces.configure("worker", f"http://127.0.0.1:{free_port()}")
    with rendering(farm_of_slots, away) as engine:
        begun = time.monotonic()
        carry(engine)
        assert farm_of_slots.job(job).counts.done == 4
        ending = time.monotonic()
        assert ending - begun < 3
    assert time.monotonic() - ending < 3


def test_a_collector_that_refuses_is_told_of_once(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def ask(times: int) -> None:
        before = len(collector.posts)
        for number in range(times):
            with tracing.request("GET", "") as answered:
                answered("/x", 200)
            so_far = before + number
            wait_until(lambda n=so_far: len(collector.posts) > n, seconds=10, what="it is asked")

    def said() -> list[tuple[str, str]]:
        return [(record.name, record.message[:10]) for record in caplog.records]

    name = "promptmill.traces.otlp"
    with closing(traces.configure("api", collector.url)) as tracing:
        collector.status = 400
        ask(4)
        assert said() == [(name, "traces are")]
        collector.status = 200
        ask(1)
    assert said() == [(name, "traces are")] * 2
    assert "again" in caplog.records[-1].message


def test_without_the_libraries_the_start_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "promptmill.traces.otlp", raising=False)
    monkeypatch.delattr(traces, "otlp", raising=False)
    given = settings.Settings(data_dir=tmp_path, otel_endpoint="http://collector:4318")
    with pytest.raises(errors.SettingInvalid, match=r"PROMPTMILL_OTEL_ENDPOINT.*promptmill\[otel]"):
        create_app(given)
    create_app(replace(given, otel_endpoint=""))


@pytest.mark.parametrize(
    "url", ["collector:4318", "grpc://collector:4317", "http://", "http://c:x", "http://c/?a=b"]
)
def test_what_is_no_address_of_a_collector_is_refused(url: str) -> None:
    with pytest.raises(errors.SettingInvalid, match=r"PROMPTMILL_OTEL_ENDPOINT.*promptmill\[otel]"):
        settings.read({"PROMPTMILL_OTEL_ENDPOINT": url})
