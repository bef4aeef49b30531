"""Bad requests: each gets its status, line and field, and leaves nothing behind."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest

from promptmill.store import tenants
from tests.integration.api_farm import ApiFarm
from tests.servers import wait_until

pytestmark = pytest.mark.servers

NDJSON, CSV, TEXT = "application/x-ndjson", "text/csv", "text/plain"


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[ApiFarm]:
    with ApiFarm(tmp_path_factory.mktemp("farm"), valkey_url) as served:
        yield served


@dataclass(frozen=True)
class Bad:
    """A request that is refused. line, param: what the answer must name."""

    body: bytes | Iterator[bytes]
    kind: str = NDJSON
    status: int = 400
    line: int | None = None
    param: str | None = None
    code: str | None = None
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


def rows(*lines: object) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def whole_lines(cut: bytes) -> int:
    """The lines of a gzip stream that lacks its end."""
    return zlib.decompressobj(wbits=31).decompress(cut).count(b"\n")


GOOD = {"prompt": "a heart"}
CUT = gzip.compress(
    rows(*[{"prompt": hashlib.sha256(b"%d" % n).hexdigest()} for n in range(3000)])
)[:-900]

REFUSED = {
    "malformed json line": Bad(rows(GOOD) + b'{"prompt": "a\n', line=2, param="line"),
    "malformed json document": Bad(
        b'{"prompts": [\n"a",\n}', kind="application/json", line=3, param="body"
    ),
    "a line that is a list": Bad(rows(GOOD, GOOD, [1, 2]), line=3, param="line"),
    "prompt of the wrong type": Bad(rows(GOOD, {"prompt": 7}), line=2, param="prompt"),
    "seed of the wrong type": Bad(rows(GOOD, {"prompt": "a", "seed": "x"}), line=2, param="seed"),
    "no prompt": Bad(rows(GOOD, {"text": "a"}), line=2, param="prompt"),
    "unknown model": Bad(
        rows(GOOD), status=404, code="model_not_found", query={"model": "nobody"}, param="model"
    ),
    "a size the model lacks, in a row": Bad(
        rows(GOOD, {"prompt": "a", "size": "999x999"}), line=2, param="size"
    ),
    "a size the model lacks, in the defaults": Bad(
        rows(GOOD), param="size", query={"size": "999x999"}
    ),
    "a parameter the model lacks": Bad(
        rows(GOOD, {"prompt": "a", "guidance": 7.5}), line=2, param="guidance"
    ),
    "NUL bytes": Bad(rows(GOOD, {"prompt": "a\0b"}), line=2, param="prompt"),
    "a CSV without a prompt column": Bad(b"text,seed\na,1\n", kind=CSV, line=1, param="prompt"),
    "a truncated gzip": Bad(
        CUT, line=whole_lines(CUT) + 1, param="body", headers={"content-encoding": "gzip"}
    ),
    "an unknown content type": Bad(b"x", kind="application/pdf", status=415),
    "an unknown default": Bad(rows(GOOD), param="sized", query={"sized": "64x64"}),
    "an empty body": Bad(b"", param="body"),
    "a foreign output prefix": Bad(rows(GOOD), query={"prefix": "elsewhere/"}, param="prefix"),
    "too long an idempotency key": Bad(
        rows(GOOD), headers={"idempotency-key": "k" * 300}, param="idempotency-key"
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_names_its_place_and_leaves_nothing(farm: ApiFarm, name: str) -> None:
    bad = REFUSED[name]
    before = farm.footprint()
    answer = farm.http.post(
        "/v1/jobs",
        params=bad.query,
        content=bad.body,
        headers={"content-type": bad.kind, **bad.headers},
    )
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.status_code == bad.status, answer.text
    error = answer.json()["error"]
    assert set(error) - {"line"} == {"message", "type", "param", "code"}
    assert (error.get("line"), error["param"]) == (bad.line, bad.param)
    if bad.code is not None:
        assert error["code"] == bad.code
    assert farm.footprint() == before


def test_one_line_of_100_mb_is_refused_before_it_is_held(farm: ApiFarm) -> None:
    def body() -> Iterator[bytes]:
        yield b'{"prompt": "'
        for _ in range(100):
            yield b"a" * 1_000_000
        yield b'"}\n'

    before = farm.footprint()
    answer = farm.http.post("/v1/jobs", content=body(), headers={"content-type": NDJSON})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (413, "too_large")
    assert (error["line"], error["param"]) == (1, "line")
    assert farm.footprint() == before


def test_a_json_document_over_16_mb_is_too_large(farm: ApiFarm) -> None:
    before = farm.footprint()
    document = {"prompts": ["a heart"], "name": "x" * 16_000_000}
    answer = farm.http.post("/v1/jobs", json=document)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (413, "too_large", "body")
    assert farm.footprint() == before


def test_an_idempotency_key_with_another_body_is_a_conflict(farm: ApiFarm) -> None:
    key = {"idempotency-key": "same"}
    assert farm.post_rows(["a heart"], headers=key).status_code == 202
    before = farm.footprint()
    answer = farm.post_rows(["a star"], headers=key)
    assert answer.status_code == 409
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("idempotency_mismatch", "idempotency_key")
    assert farm.footprint() == before


def test_a_broken_upload_leaves_nothing_and_can_be_sent_again(farm: ApiFarm) -> None:
    def broken() -> Iterator[bytes]:
        yield rows(*[{"prompt": f"prompt {n}"} for n in range(3000)])
        raise OSError("the cable was pulled")

    before = farm.footprint()
    headers = {"content-type": NDJSON, "idempotency-key": "broken"}
    with pytest.raises(OSError, match="cable"), httpx.Client(base_url=farm.url) as client:
        client.post("/v1/jobs", content=broken(), headers=headers)

    def taken() -> bool:
        answer = farm.post_rows(["a heart"], headers={"idempotency-key": "broken"})
        assert answer.status_code in (202, 409), answer.text
        return answer.status_code == 202

    wait_until(taken, seconds=10, what="the broken upload is abandoned and its key free")
    after = farm.footprint()
    assert {name: after[name] - before[name] for name in ("jobs", "segments", "lanes")} == {
        "jobs": 1,
        "segments": 1,
        "lanes": 1,
    }


def test_a_tenant_over_its_limit_is_told_when_to_come_back(farm: ApiFarm) -> None:
    before = farm.footprint()
    farm.app.state.farm.queue_limit = lambda _: tenants.queued_images(farm.db, 1) + 3
    try:
        answer = farm.post_rows(["one", "two", "three", "four"])
    finally:
        del farm.app.state.farm.queue_limit
    assert answer.status_code == 429
    assert answer.json()["error"]["type"] == "rate_limit_exceeded"
    assert int(answer.headers["retry-after"]) >= 1
    assert farm.footprint() == before


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("PUT", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/v1/jobs/job_unknown", 404, "not_found"),
        ("POST", "/v1/jobs/job_unknown/cancel", 404, "not_found"),
        ("DELETE", "/v1/jobs/job_unknown", 404, "not_found"),
        ("GET", "/v1/jobs/job_unknown/images", 404, "not_found"),
        ("GET", "/v1/jobs/job_unknown/events", 404, "not_found"),
        ("GET", "/v1/models/nobody", 404, "model_not_found"),
        ("GET", "/dashboard/..%2fapp.py", 404, "not_found"),
        ("GET", "/v1/jobs?after=job_unknown", 400, "invalid_request"),
    ],
)
def test_every_refusal_wears_the_envelope(
    farm: ApiFarm, method: str, path: str, status: int, code: str
) -> None:
    answer = farm.http.request(method, path)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["message"]
    assert answer.headers["x-request-id"].startswith("req_")


def test_a_body_over_the_limit_is_refused(farm: ApiFarm) -> None:
    id = farm.submit(["a heart"])["id"]
    path = f"/v1/jobs/{id}/retry"
    kind = {"content-type": "application/json"}
    said = farm.http.post(path, content=b" " * 16_000_001, headers=kind)
    assert (said.status_code, said.json()["error"]["code"]) == (413, "too_large")
    unsaid = farm.http.post(path, content=iter([b" " * 1_000_000] * 17), headers=kind)
    assert (unsaid.status_code, unsaid.json()["error"]["code"]) == (413, "too_large")


def test_a_body_with_unknown_fields_is_refused(farm: ApiFarm) -> None:
    id = farm.submit(["a heart"])["id"]
    answer = farm.http.post(f"/v1/jobs/{id}/retry", json={"code": ["x"]})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "code"
    bad = farm.http.post(
        f"/v1/jobs/{id}/retry", content=b"{", headers={"content-type": "application/json"}
    )
    assert bad.json()["error"]["message"] == "the body is not valid JSON"


def test_what_nobody_expected_says_only_its_request_id(farm: ApiFarm) -> None:
    def broken(_: str) -> None:
        raise RuntimeError("the secret detail")

    farm.app.state.farm.workers = broken
    try:
        answer = farm.http.get("/v1/models", headers={"x-request-id": "mine-1"})
    finally:
        del farm.app.state.farm.workers
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.json()["error"]["code"] == "internal_error"
    assert "mine-1" in answer.text
    assert "secret" not in answer.text
