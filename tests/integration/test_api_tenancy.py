"""A stranger with a key of its own asks for everything that the OpenAPI document names, by the
names of what another tenant has, and finds and changes nothing. The document is walked, so
that a new route is asked, too; one that the walk cannot fill in fails here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from promptmill.store import tenants
from promptmill.store.tenants import Scope
from tests.integration import tenancy
from tests.integration.api_farm import ApiFarm
from tests.integration.tenancy import MARK, Ask, Estate

pytestmark = pytest.mark.servers

# Open to all, or the farm's rather than a tenant's.
COMMON = {"/healthz", "/readyz", "/metrics", "/v1/models", "/v1/models/{name}", "/v1/workers",
          "/v1/provenance/key"}  # fmt: skip
# For a worker; they name nothing of anyone.
WAITS = {"/v1/images/generations", "/v1/images/edits"}
REFUSED = {400, 403, 404, 409, 415}
# What the owner's own request may be answered with, beyond success: the state forbids it.
OWNERS = {302, 307, 409}
NOT_YET = {"/v1/exports/{export_id}/files/{name}"}  # before a builder has sealed it


@dataclass
class Two:
    farm: ApiFarm
    owner: httpx.Client
    stranger: httpx.Client
    estate: Estate
    asks: list[Ask]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[Two]:
    options = {"auth": "keys", "requests_per_second": 0.0}
    with (
        ApiFarm(tmp_path_factory.mktemp("tenancy"), valkey_url, **options) as farm,
        client(farm, "owner") as owner,
        client(farm, "stranger") as stranger,
    ):
        document = farm.http.get("/openapi.json").json()
        estate = tenancy.settle(farm, owner, document)
        yield Two(farm, owner, stranger, estate, list(tenancy.asks(document, estate)))


def client(farm: ApiFarm, tenant: str) -> httpx.Client:
    _, secret = tenants.create_key(farm.db, tenant, scopes=tuple(Scope))
    headers = {"authorization": f"Bearer {secret}"}
    return httpx.Client(base_url=farm.url, headers=headers, timeout=30)


def test_the_stranger_finds_nothing_and_changes_nothing(two: Two) -> None:
    before = picture(two)
    for ask in two.asks:
        if ask.path in WAITS:
            continue
        answer = ask.send(two.stranger)
        named = {name for name in two.estate.names if "{" + name + "}" in ask.path}
        named |= {ask.path} if (ask.method, ask.path) in tenancy.NAMES_THINGS else set()
        if named and ask.path not in COMMON:
            assert answer.status_code in REFUSED, f"{ask}: {answer.status_code}"
        assert answer.status_code < 500, f"{ask}: {answer.status_code}"
        if ask.method == "get":
            found = {secret for secret in two.estate.secrets if secret in answer.text}
            assert not found - known(ask, two.estate), f"{ask}: tells {found}"
    assert picture(two) == before


def known(ask: Ask, estate: Estate) -> set[str]:
    """The secrets that the request itself says: an image id says its job's. An answer may
    repeat them."""
    given = " ".join((ask.url, *ask.params.values()))
    return {secret for secret in estate.secrets if secret.removeprefix("job_") in given}


def picture(two: Two) -> list[object]:
    """What the owner sees."""
    asked = [
        "/v1/jobs", *(f"/v1/jobs/{two.estate.names[name]}" for name in ("job_id", "verify_job")),
        f"/v1/jobs/{two.estate.names['job_id']}/images",
        f"/v1/jobs/{two.estate.names['job_id']}/webhooks",
    ]  # fmt: skip
    seen = []
    for path in asked:
        answer = two.owner.get(path)
        assert answer.status_code == 200
        seen.append(answer.json())
    return [_still(value) for value in seen]


def _still(value: object) -> object:
    """Without what moves by itself: a pace, a signed link."""
    if isinstance(value, dict):
        moving = ("url", "images_per_second", "cold", "due_at")
        return {k: _still(v) for k, v in value.items() if k not in moving}
    return [_still(inner) for inner in value] if isinstance(value, list) else value


def test_the_same_requests_find_what_is_there_when_the_owner_sends_them(two: Two) -> None:
    """Or the walk above would prove nothing."""
    telling, refused = 0, []
    for ask in sorted(two.asks, key=lambda ask: tenancy.METHODS.index(ask.method)):
        if ask.path in WAITS or "signature" in ask.params:
            continue
        answer = ask.send(two.owner)
        telling += any(secret in answer.text for secret in two.estate.secrets)
        if not answer.is_success and answer.status_code not in OWNERS and ask.path not in NOT_YET:
            refused.append(f"{ask}: {answer.status_code} {answer.text[:200]}")
    assert refused == []
    assert telling > len(two.asks) / 3


def test_the_names_of_one_tenant_mean_nothing_in_the_bodies_of_another(two: Two) -> None:
    """Where a body refers to a thing, not only where a path does."""
    job, image = two.estate.names["job_id"], f"img_{two.estate.names['job_id'][4:]}_0"
    kind = {"content-type": "application/x-ndjson"}
    row = f'{{"prompt": "a", "source": "{image}"}}'
    answer = two.stranger.post("/v1/jobs", content=row, headers=kind, params={"dry_run": "true"})
    assert MARK not in answer.text
    assert answer.status_code == 400 or answer.json()["valid"] is False, answer.text
    assert two.stranger.post("/v1/jobs", content=row, headers=kind).status_code == 400
    assert two.stranger.get("/v1/jobs", params={"after": job}).status_code == 400
