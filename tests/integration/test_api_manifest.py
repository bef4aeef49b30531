"""The signed manifest of a job: the same bytes whenever it is asked for, checked with the
public key alone, and refused as soon as a byte of it is another."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from promptmill import errors, manifest
from promptmill.store import tenants
from tests.integration.api_farm import ApiFarm

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[ApiFarm]:
    with ApiFarm(tmp_path_factory.mktemp("farm"), valkey_url, auth="keys") as served:
        served.http.headers = httpx.Headers(key_of(served, "anna"))
        yield served


def key_of(farm: ApiFarm, tenant: str) -> dict[str, str]:
    _, secret = tenants.create_key(farm.db, tenant)
    return {"authorization": f"Bearer {secret}"}


@pytest.fixture(scope="module")
def job(farm: ApiFarm) -> str:
    """Two sizes, so two lanes; one of five rows fails, one has two samples."""
    rows = [
        {"prompt": "a heart", "id": "first"},
        {"prompt": "fail this"},
        {"prompt": "ein Herz für Grüße ❤", "n": 2},
        {"prompt": "small", "size": "32x32"},
    ]
    id: str = farm.submit(rows)["id"]
    farm.worker.drain()
    return id


def manifest_of(farm: ApiFarm, job: str, **query: str) -> bytes:
    answer = farm.http.get(f"/v1/jobs/{job}/manifest", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return answer.content


def test_it_names_every_picture_and_no_prompt(farm: ApiFarm, job: str) -> None:
    data = manifest_of(farm, job)
    header, *lines, end = map(json.loads, data.splitlines())
    assert (header["job"], header["model"], header["total"]) == (job, farm.model, 5)
    images = {image["index"]: image for image in farm.images(job)}
    assert [line["index"] for line in lines] == [0, 2, 3, 4], "1 failed"
    for line in lines:
        image = images[line["index"]]
        for name in ("row", "sample", "custom_id", "sha256", "bytes", "seed", "fingerprint"):
            assert line[name] == image[name], name
        assert line["prompt_sha256"] == hashlib.sha256(image["prompt"].encode()).hexdigest()
    assert (end["images"], end["bytes"]) == (4, sum(line["bytes"] for line in lines))
    assert b"heart" not in data
    told = manifest_of(farm, job, prompts="true").splitlines()
    assert json.loads(told[2])["prompt"] == "ein Herz für Grüße ❤"


def test_the_public_key_alone_checks_it(farm: ApiFarm, job: str) -> None:
    data = manifest_of(farm, job)
    *lines, last = data.splitlines(keepends=True)
    end = json.loads(last)
    assert end["sha256"] == hashlib.sha256(b"".join(lines)).hexdigest()
    told = farm.http.get("/v1/provenance/key").json()
    key = load_pem_public_key(told["pem"].encode())
    signature = base64.b64decode(end["signature"])
    key.verify(signature, f"promptmill-manifest-v1:{end['sha256']}".encode())  # type: ignore[union-attr, call-arg]
    header = json.loads(lines[0])
    assert (header["key_id"], header["public_key"]) == (told["id"], told["public_key"])
    assert manifest.public_key(told["pem"]) == manifest.public_key(told["public_key"])


def test_a_finished_job_has_one_manifest(farm: ApiFarm, job: str) -> None:
    first = manifest_of(farm, job)
    assert manifest_of(farm, job) == first
    running = farm.submit(["waits"])["id"]
    reading = manifest.Reading(manifest_of(farm, running).splitlines(keepends=True))
    assert list(reading.images()) == []
    assert reading.checked is not None and reading.checked.final is False


def _drop_line(data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join(lines[:2] + lines[3:])


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "a seed": lambda data: data.replace(b'"seed":', b'"seed":1', 1),
    "a line less": _drop_line,
    "cut short": lambda data: data[: data.rindex(b'{"object":"manifest.end"')],
    "more behind it": lambda data: data + b'{"index":9}\n',
    "no JSON": lambda data: data.replace(b'{"index"', b'{index"', 1),
    "another signature": lambda data: data.replace(b'"signature":"', b'"signature":"AA', 1),
    "no manifest": lambda data: b'{"prompt":"a heart"}\n' + data,
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_seen(farm: ApiFarm, job: str, change: str) -> None:
    data = manifest_of(farm, job)
    with pytest.raises(errors.BadRow):
        list(manifest.Reading(CHANGES[change](data).splitlines(keepends=True)).images())


def test_a_forger_is_found_by_the_key(farm: ApiFarm, job: str) -> None:
    """Whoever rewrites a manifest can sign it with a key of their own, and no other."""
    header, *lines, _ = map(json.loads, manifest_of(farm, job).splitlines())
    forged = list(manifest.Signer(b"x" * 32).write(header, lines[1:]))
    assert "ed25519:" in json.loads(forged[0])["key_id"]
    key = manifest.public_key(farm.http.get("/v1/provenance/key").json()["public_key"])
    list(manifest.Reading(forged).images())  # consistent in itself
    with pytest.raises(errors.BadRow, match="signed by"):
        list(manifest.Reading(forged, key=key).images())
    claims = [
        forged[0].replace(
            manifest.encoded(manifest.Signer(b"x" * 32).public).encode(),
            manifest.encoded(key).encode(),
        ),
        *forged[1:],
    ]
    with pytest.raises(errors.BadRow):
        list(manifest.Reading(claims, key=key).images())


def test_a_key_that_is_none_is_refused() -> None:
    for text in ("", "hello", "AAAA", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"):
        with pytest.raises(errors.BadRequest):
            manifest.public_key(text)


def test_manifests_are_of_ones_own_jobs_and_the_key_is_everyones(farm: ApiFarm, job: str) -> None:
    with httpx.Client(base_url=farm.url, headers=key_of(farm, "boris")) as boris:
        for method, path in (
            ("GET", "manifest"),
            ("GET", "webhooks"),
            ("POST", "webhooks/redeliver"),
        ):
            assert boris.request(method, f"/v1/jobs/{job}/{path}").status_code == 404
    assert httpx.get(f"{farm.url}/v1/provenance/key").status_code == 200


def test_equal_bytes_are_found_page_by_page_in_ones_own_jobs(farm: ApiFarm) -> None:
    row = {"prompt": "the same", "seed": 1}
    body = {"items": [row, row], "model": farm.model}
    with httpx.Client(base_url=farm.url, headers=key_of(farm, "boris")) as boris:
        mine = [farm.http.post("/v1/jobs", json=body).json()["id"] for _ in range(2)]
        theirs = boris.post("/v1/jobs", json=body).json()["id"]
        farm.worker.drain()
        sha = farm.images(mine[0])[0]["sha256"]
        query = {"sha256": sha, "limit": "3"}
        page = farm.http.get("/v1/provenance", params=query).json()
        found = [(image["job_id"], image["index"]) for image in page["data"]]
        assert (found, page["has_more"]) == ([(mine[0], 0), (mine[0], 1), (mine[1], 0)], True)
        rest = farm.http.get("/v1/provenance", params={**query, "after": page["last_id"]}).json()
        assert [(i["job_id"], i["index"]) for i in rest["data"]] == [(mine[1], 1)]
        assert rest["has_more"] is False
        seen = boris.get("/v1/provenance", params={"sha256": sha}).json()["data"]
        assert {image["job_id"] for image in seen} == {theirs}
        foreign = boris.get("/v1/provenance", params={**query, "after": page["last_id"]})
        assert foreign.status_code == 404
