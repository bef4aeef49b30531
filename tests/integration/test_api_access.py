"""Who may see what: keys, tenants, open farms, other origins."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from api import app as api_app
from promptmill import errors
from promptmill.settings import Settings
from promptmill.store import tenants
from tests.integration.api_farm import ApiFarm

pytestmark = pytest.mark.servers


@pytest.fixture
def farm(tmp_path: Path, valkey_url: str) -> Iterator[ApiFarm]:
    with ApiFarm(tmp_path, valkey_url, auth="keys") as served:
        yield served


def client(farm: ApiFarm, tenant: str, **options: int) -> httpx.Client:
    _, secret = tenants.create_key(farm.db, tenant, **options)
    return httpx.Client(base_url=farm.url, headers={"authorization": f"Bearer {secret}"})


def test_without_a_valid_key_nothing_opens(farm: ApiFarm) -> None:
    for headers in ({}, {"authorization": "Bearer pm_wrong"}, {"authorization": "Basic eDp5"}):
        for method, path in (("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("GET", "/v1/workers")):
            answer = farm.http.request(method, path, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert "pm_wrong" not in answer.text
    assert farm.http.get("/healthz").status_code == 200
    assert farm.http.get("/").status_code == 200


def test_a_revoked_key_is_refused(farm: ApiFarm) -> None:
    key_id, secret = tenants.create_key(farm.db, "anna")
    headers = {"authorization": f"Bearer {secret}"}
    assert farm.http.get("/v1/jobs", headers=headers).status_code == 200
    tenants.revoke_key(farm.db, key_id)
    assert farm.http.get("/v1/jobs", headers=headers).status_code == 401


def test_a_tenant_cannot_see_name_or_touch_another(farm: ApiFarm) -> None:
    with client(farm, "anna") as anna, client(farm, "boris") as boris:
        made = anna.post("/v1/jobs", json={"prompts": ["a heart"], "model": farm.model})
        id = made.json()["id"]
        farm.worker.drain()
        sha = anna.get(f"/v1/jobs/{id}/images/0").json()["sha256"]
        unknown = boris.get("/v1/jobs/job_unknown")
        for method, path in (
            ("GET", ""),
            ("GET", "/images"),
            ("GET", "/images/0"),
            ("GET", "/images/0/content"),
            ("GET", "/events"),
            ("GET", "/failures"),
            ("POST", "/cancel"),
            ("POST", "/pause"),
            ("POST", "/resume"),
            ("POST", "/retry"),
            ("POST", "/verify"),
            ("GET", f"/verify/{id}"),
            ("DELETE", ""),
        ):
            answer = boris.request(method, f"/v1/jobs/{id}{path}")
            assert answer.status_code == 404, path
            assert set(answer.json()["error"]) == set(unknown.json()["error"])
        assert boris.get("/v1/jobs").json()["data"] == []
        assert boris.get("/v1/provenance", params={"sha256": sha}).json()["data"] == []
        assert boris.get("/v1/jobs", params={"after": id}).status_code == 400
        assert anna.get(f"/v1/jobs/{id}").json()["counts"]["done"] == 1


def test_the_limit_of_a_tenant_is_its_own(farm: ApiFarm) -> None:
    with client(farm, "small", max_queued=3) as small, client(farm, "large") as large:
        body = {"prompts": ["a"] * 4, "model": farm.model}
        refused = small.post("/v1/jobs", json=body)
        assert refused.status_code == 429
        assert "retry-after" in refused.headers
        assert large.post("/v1/jobs", json=body).status_code == 202


def test_an_open_farm_listens_on_loopback_only() -> None:
    for host in ("0.0.0.0", "::", "farm.example", "10.0.0.1"):
        with pytest.raises(errors.SettingInvalid, match="PROMPTMILL_AUTH"):
            api_app.create_app(Settings(host=host))
    for host in ("127.0.0.1", "::1", "localhost"):
        api_app.create_app(Settings(host=host))
    api_app.create_app(Settings(host="0.0.0.0", auth="keys"))


def test_an_open_farm_refuses_rebound_names_and_other_origins(
    tmp_path: Path, valkey_url: str
) -> None:
    with ApiFarm(tmp_path, valkey_url) as farm:
        rebound = farm.http.get("/v1/jobs", headers={"host": "evil.example"})
        assert rebound.status_code == 403
        rebound = farm.http.get("/metrics", headers={"host": "evil.example"})
        assert rebound.status_code == 403
        assert farm.http.get("/metrics").status_code == 200

        def post_from(origin: str) -> int:
            headers = {"content-type": "text/plain", "origin": origin}
            return farm.http.post("/v1/jobs", content="a heart", headers=headers).status_code

        assert post_from("https://evil.example") == 403
        assert post_from(farm.url) == 202


def test_a_port_that_is_taken_is_one_line_with_its_remedy(tmp_path: Path, valkey_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        settings = Settings(data_dir=tmp_path, redis_url=valkey_url, port=port)
        with pytest.raises(errors.SettingInvalid) as caught:
            api_app.serve(settings)
    assert "PROMPTMILL_PORT" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_serving_without_what_it_needs_names_the_setting(tmp_path: Path, valkey_url: str) -> None:
    settings = Settings(data_dir=tmp_path, redis_url=valkey_url, port=0)
    with pytest.raises(errors.DatabaseDown, match=r"migrate|PROMPTMILL_DATABASE_URL"):
        api_app.serve(settings)
    farm = ApiFarm(tmp_path, valkey_url)
    farm.db.close()
    farm.queue.close()
    farm.blobs.close()
    away = replace(farm.settings, redis_url=f"unix://{tmp_path}/nobody.sock", port=0)
    with pytest.raises(errors.RedisDown, match="PROMPTMILL_REDIS_URL"):
        api_app.serve(away)


def test_a_connection_that_is_reset_does_not_harm_the_server(farm: ApiFarm) -> None:
    host, port = farm.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert farm.http.get("/healthz").status_code == 200
