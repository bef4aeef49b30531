"""Health, readiness, metrics, models and workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from api.farm import WORKERS_FOR
from api.readiness import Probe
from promptmill import cli, errors, models
from promptmill.blobs.folder import DirBlobs
from promptmill.store import control
from promptmill.store import models as stored_models
from tests.integration.api_farm import CAPS, FINGERPRINT, ApiFarm
from tests.servers import ValkeyServer

pytestmark = pytest.mark.servers


@pytest.fixture
def farm(tmp_path: Path, valkey_url: str) -> Iterator[ApiFarm]:
    with ApiFarm(tmp_path, valkey_url) as served:
        yield served


def test_a_ready_farm_says_ok_to_each_check(farm: ApiFarm) -> None:
    assert farm.http.get("/healthz").json() == {"status": "ok", "checks": {}}
    answer = farm.http.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "checks": {"database": "ok", "redis": "ok", "storage": "ok"},
    }


def test_readiness_names_what_is_down_and_returns(tmp_path: Path) -> None:
    with ValkeyServer() as server, ApiFarm(tmp_path, server.url) as farm:
        server.kill()
        answer = farm.http.get("/readyz")
        assert answer.status_code == 503
        checks = answer.json()["checks"]
        assert (checks["database"], checks["storage"]) == ("ok", "ok")
        assert "PROMPTMILL_REDIS_URL" in checks["redis"]
        assert farm.http.get("/healthz").status_code == 200
        listed = farm.http.get("/v1/models").json()["data"]
        assert [(m["id"], m["cold"]) for m in listed] == [(farm.model, None)]
        workers = farm.http.get("/v1/workers")
        assert workers.status_code == 503
        assert workers.json()["error"]["code"] == "redis_unavailable"
        assert "retry-after" in workers.headers
        taken = farm.post_rows(["a heart"])
        assert taken.status_code == 202
        assert taken.json()["cold"] is None
        server.start()
        assert farm.http.get("/readyz").status_code == 200


def test_a_storage_that_cannot_be_written_is_named(farm: ApiFarm) -> None:
    (farm.folder / "objects").mkdir(exist_ok=True)
    for path in sorted((farm.folder / "objects").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (farm.folder / "objects").rmdir()
    (farm.folder / "objects").write_text("in the way")
    answer = farm.http.get("/readyz")
    assert answer.status_code == 503
    assert "PROMPTMILL_STORAGE_URL" in answer.json()["checks"]["storage"]


def test_asking_again_and_again_writes_once(
    tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[float] = []
    plain = DirBlobs.probe

    def counted(self: DirBlobs) -> None:
        calls.append(time.monotonic())
        plain(self)

    monkeypatch.setattr(DirBlobs, "probe", counted)
    with ApiFarm(tmp_path, valkey_url) as farm:
        begun = time.monotonic()
        while time.monotonic() < begun + 1:
            assert farm.http.get("/readyz").status_code == 200
    assert len(calls) == 1


def test_what_is_believed_grows_old() -> None:
    said = iter(["first", "second"])

    def fails() -> None:
        raise errors.StorageDown(next(said))

    async def ask() -> list[str]:
        probe = Probe(fails, believed=0.2)
        found = [*await asyncio.gather(probe(), probe()), await probe()]
        await asyncio.sleep(0.3)
        found.append(await probe())
        await probe.close()
        return found

    assert asyncio.run(ask()) == ["first", "first", "first", "second"]


def test_models_say_what_they_can_do(farm: ApiFarm) -> None:
    page = farm.http.get("/v1/models").json()
    assert page["object"] == "list"
    [model] = page["data"]
    assert model["id"] == farm.model
    assert model["fingerprint"] == FINGERPRINT
    assert model["sizes"] == ["64x64", "32x32"]
    assert model["cold"] is True
    assert farm.http.get(f"/v1/models/{farm.model}").json() == model


def test_a_model_is_removed_once_nothing_of_it_is_open(
    farm: ApiFarm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("DATABASE", farm.settings.database), ("REDIS", farm.settings.redis)):
        monkeypatch.setenv(f"PROMPTMILL_{name}_URL", value)

    def refusal(name: str = farm.model) -> str:
        assert cli.run(["models", "remove", name]) == 1
        return capsys.readouterr().err

    farm.worker.report()
    assert f"1 worker(s) serve {farm.model}" in refusal()
    farm.queue.forget(farm.worker.name)
    assert "a worker registered" in refusal()
    stored_models.remove(farm.db, farm.model, quiet=0.0)
    for model in (farm.model, "other"):
        stored_models.add(farm.db, models.Model(model, CAPS, ""))
    job = farm.submit(["a heart", "fail"])["id"]
    assert "1 job(s)" in refusal()
    farm.worker.drain()
    control.finish_ready(farm.db)
    assert cli.run(["models", "remove", farm.model]) == 0
    assert "no longer registered" in capsys.readouterr().out
    assert "(registered: other)" in refusal()
    asked = (
        farm.http.get(f"/v1/models/{farm.model}"),
        farm.post_rows(["a heart"]),
        farm.http.post(f"/v1/jobs/{job}/retry"),
        farm.http.post(f"/v1/jobs/{job}/verify", json={"all": True}),
        farm.http.post("/v1/images/generations", json={"prompt": "a", "model": farm.model}),
    )
    for answer in asked:
        assert answer.status_code == 404, answer.text
        assert answer.json()["error"]["code"] == "model_not_found"
        assert "(registered: other)" in answer.json()["error"]["message"]
    assert [m["id"] for m in farm.http.get("/v1/models").json()["data"]] == ["other"]
    assert farm.job(job)["counts"]["done"] == 1
    assert farm.http.get(f"/v1/jobs/{job}/images/0/content").status_code == 200


def test_fingerprints_that_are_mixed_are_told(farm: ApiFarm) -> None:
    farm.worker.report()
    replace(farm.worker, name="w2").report()
    time.sleep(WORKERS_FOR)
    assert farm.submit(["a"])["notice"] is None
    replace(farm.worker, name="w3", fingerprint="another").report()
    time.sleep(WORKERS_FOR)
    [model] = farm.http.get("/v1/models").json()["data"]
    assert (model["workers"], model["fingerprints"]) == (3, sorted([FINGERPRINT, "another"]))
    job = farm.submit(["a"])
    assert "2 different fingerprints" in job["notice"]
    farm.worker.drain()
    control.finish_ready(farm.db)
    assert farm.job(job["id"])["notice"] is None


def test_workers_are_those_that_report(farm: ApiFarm) -> None:
    assert farm.http.get("/v1/workers").json()["data"] == []
    farm.worker.report()
    [worker] = farm.http.get("/v1/workers").json()["data"]
    assert worker["id"] == "w1"
    assert worker["model"] == farm.model
    assert worker["state"] == "idle"


def test_metrics_are_what_prometheus_reads(farm: ApiFarm) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    id = farm.submit(["a heart", "a star"])["id"]
    farm.job(id)
    answer = farm.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    families = {f.name: f for f in text_string_to_metric_families(answer.text)}
    routes = {s.labels["route"] for s in families["promptmill_http_requests"].samples}
    assert {"/v1/jobs", "/v1/jobs/{job_id}"} <= routes
    assert id not in answer.text

    def gauge(name: str) -> float:
        return next(s.value for s in families[name].samples if s.labels["model"] == farm.model)

    assert gauge("promptmill_queued_images") == 2
    assert gauge("promptmill_leased_images") == 0
    assert gauge("promptmill_work_seconds") > 0


def test_two_farms_in_one_process_count_each_their_own(
    farm: ApiFarm, tmp_path: Path, valkey_url: str
) -> None:
    with ApiFarm(tmp_path / "other", valkey_url) as other:
        other.http.get("/v1/jobs")
        told = other.http.get("/metrics").text
        assert 'route="/v1/jobs",status="200"} 1.0' in told
        assert f'promptmill_queued_images{{model="{other.model}"}}' in told
        assert farm.model not in told
    assert '"/v1/jobs"' not in farm.http.get("/metrics").text


def test_the_api_describes_itself(farm: ApiFarm) -> None:
    paths = farm.http.get("/openapi.json").json()["paths"]
    for path in ("/v1/jobs", "/v1/jobs/{job_id}/images", "/v1/models", "/readyz"):
        assert path in paths
