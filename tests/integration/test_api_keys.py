"""What a key may do, how often, and what every answer tells a browser."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from api import arrival, doors, headers
from api.pacing import Pacing
from api.routes import events as event_routes
from promptmill import cli
from promptmill.models import Model
from promptmill.store import models as stored_models
from promptmill.store import tenants
from promptmill.store.database import Database
from promptmill.store.tenants import Scope
from tests.integration.api_farm import ApiFarm
from tests.servers import wait_until

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[ApiFarm]:
    folder = tmp_path_factory.mktemp("keys")
    with ApiFarm(folder, valkey_url, auth="keys", requests_per_second=5.0) as served:
        yield served


def client(farm: ApiFarm, tenant: str, *scopes: Scope) -> httpx.Client:
    _, secret = tenants.create_key(farm.db, tenant, scopes=scopes or tenants.TENANTS_OWN)
    return httpx.Client(base_url=farm.url, headers={"authorization": f"Bearer {secret}"})


def test_a_key_does_what_its_scopes_say_and_no_more(farm: ApiFarm) -> None:
    body = {"prompts": ["a heart"], "model": farm.model}
    with client(farm, "anna") as whole:
        id = whole.post("/v1/jobs", json=body).json()["id"]
    asks = {
        Scope.READ: ("GET", f"/v1/jobs/{id}", 200),
        Scope.SUBMIT: ("POST", "/v1/jobs", 202),
        Scope.MANAGE: ("POST", f"/v1/jobs/{id}/pause", 200),
        Scope.METRICS: ("GET", "/metrics", 200),
    }
    for scope in Scope:
        with client(farm, "anna", scope) as narrow:
            for needed, (method, path, status) in asks.items():
                answer = narrow.request(method, path, json=body if path == "/v1/jobs" else None)
                assert answer.status_code == (status if needed is scope else 403), (scope, path)
                if needed is not scope:
                    assert answer.json()["error"]["code"] == "forbidden"
                    assert f"scope {needed}" in answer.json()["error"]["message"]
    with client(farm, "anna", Scope.READ, Scope.SUBMIT) as narrow:
        assert narrow.delete(f"/v1/jobs/{id}").status_code == 403
        assert narrow.head(f"/v1/jobs/{id}/images/0/content").status_code == 404
    assert farm.http.get("/metrics").status_code == 401


def test_the_command_line_makes_narrow_keys(
    farm: ApiFarm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROMPTMILL_DATABASE_URL", farm.settings.database)
    args = ["keys", "create", "dora", "--scope", "submit", "--scope", "read"]
    assert cli.run(args) == 0
    found = tenants.authenticate(farm.db, capsys.readouterr().out.strip())
    assert found is not None and found[1] == {Scope.READ, Scope.SUBMIT}
    assert cli.run(["keys", "list"]) == 0
    assert "read submit" in capsys.readouterr().out
    assert cli.run(["keys", "create", "dora", "--scope", "root"]) == 2


def test_a_tenant_that_asks_too_often_waits_and_slows_nobody_else(farm: ApiFarm) -> None:
    with client(farm, "hasty") as hasty, client(farm, "calm") as calm:
        answers = [hasty.get("/v1/jobs") for _ in range(60)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert 200 in {answer.status_code for answer in answers}
        assert refused
        assert refused[-1].json()["error"]["code"] == "rate_limited"
        assert int(refused[-1].headers["retry-after"]) >= 1
        assert calm.get("/v1/jobs").status_code == 200


def test_who_has_no_key_is_refused_before_the_body_is_read(farm: ApiFarm) -> None:
    """The head alone is answered, though not a byte of the body that it promises is sent."""
    host, port = farm.socket.getsockname()
    _, secret = tenants.create_key(farm.db, "schemes", scopes=tenants.TENANTS_OWN)
    for given in ("", "authorization: Bearer nobody\r\n", f"authorization: Basic {secret}\r\n"):
        with socket.create_connection((host, port), timeout=10) as line:
            head = f"POST /v1/jobs/x/exports HTTP/1.1\r\nhost: {host}\r\n{given}"
            line.sendall(f"{head}content-length: 3000000\r\n\r\n".encode())
            assert line.recv(1000).startswith(b"HTTP/1.1 401 "), given


def test_a_body_that_stops_arriving_is_refused(
    farm: ApiFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrival, "SILENCE", 0.5)
    _, secret = tenants.create_key(farm.db, "slow", scopes=tenants.TENANTS_OWN)
    host, port = farm.socket.getsockname()
    with socket.create_connection((host, port), timeout=10) as line:
        head = f"POST /v1/jobs/x/exports HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {secret}"
        line.sendall(f"{head}\r\ncontent-length: 3000\r\n\r\n[".encode())
        assert line.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_a_stream_ends_when_its_key_is_revoked(
    farm: ApiFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_routes, "KEY_AGAIN", 0.1)
    key, secret = tenants.create_key(farm.db, "former", scopes=tenants.TENANTS_OWN)
    with httpx.Client(
        base_url=farm.url, headers={"authorization": f"Bearer {secret}"}, timeout=20
    ) as former:
        body = {"prompts": ["a heart"], "model": farm.model}
        id = former.post("/v1/jobs", json=body).json()["id"]
        with former.stream("GET", f"/v1/jobs/{id}/events") as told:
            lines = told.iter_lines()
            assert next(lines)
            tenants.revoke_key(farm.db, key)
            deadline = time.monotonic() + 10
            for _ in lines:  # it comes to its end, though the job has not
                assert time.monotonic() < deadline


def test_one_key_has_so_many_requests_at_once_and_keeps_no_other_waiting(
    farm: ApiFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty slow requests of one key, as many as there are threads; another key's is quick."""
    release, inside, most, lock = threading.Event(), 0, 0, threading.Lock()
    true = stored_models.all

    def slow(db: Database) -> list[Model]:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        release.wait(20)
        with lock:
            inside -= 1
        return true(db)

    monkeypatch.setattr(farm.app.state.farm, "pacing", Pacing(0.0))
    monkeypatch.setattr(stored_models, "all", slow)
    with client(farm, "many") as many, client(farm, "few") as few, ThreadPoolExecutor(40) as pool:
        asked = [pool.submit(many.get, "/v1/models") for _ in range(40)]
        try:
            wait_until(lambda: inside == doors.AT_ONCE, seconds=10, what="its places are taken")
            assert few.get("/v1/jobs", timeout=10).status_code == 200
        finally:
            release.set()
        assert {answer.result().status_code for answer in asked} == {200}
    assert most == doors.AT_ONCE


def test_every_answer_tells_browsers_to_keep_still(farm: ApiFarm) -> None:
    with client(farm, "safe") as safe:
        answers = {
            path: safe.get(path)
            for path in ("/", "/dashboard/app.js", "/v1/jobs", "/v1/jobs/none", "/nowhere",
                         "/healthz", "/openapi.json")
        }  # fmt: skip
        answers["401"] = farm.http.get("/v1/jobs")
        answers["413"] = safe.post("/v1/images/generations", content=b" " * 17_000_000)
    for path, answer in answers.items():
        for name in headers.ALWAYS:
            assert name in answer.headers, (path, name)
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"], path
        assert "unsafe" not in answer.headers["content-security-policy"], path
        assert answer.headers["x-content-type-options"] == "nosniff", path
    assert "sandbox" not in answers["/"].headers["content-security-policy"]
    assert answers["/v1/jobs"].headers["cache-control"] == "no-store"


def test_no_other_origin_may_read(farm: ApiFarm) -> None:
    with client(farm, "cross") as cross:
        origin = {"origin": "https://evil.example"}
        asked = {"access-control-request-method": "POST"}
        answers = (
            cross.get("/v1/jobs", headers=origin),
            cross.options("/v1/jobs", headers=origin | asked),
        )
    for answer in answers:
        assert not [name for name in answer.headers if name.startswith("access-control-")]
