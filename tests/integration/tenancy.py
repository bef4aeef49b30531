"""For the walk of a stranger: what one tenant has, and every request of the OpenAPI document
filled in with the names of it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from promptmill.store import control
from tests.integration.api_farm import ApiFarm
from tests.servers import wait_until

MARK = "zebrafish"  # in everything that a tenant says, and nowhere else
METHODS = ("get", "post", "put", "patch", "delete")


@dataclass
class Estate:
    """What the owner has. `names` fills parameters; `secrets` may be seen by nobody else."""

    model: str
    names: dict[str, str] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Ask:
    """One request. path: the template it was made from."""

    method: str
    path: str
    url: str
    params: Mapping[str, str]
    body: Any

    def send(self, client: httpx.Client) -> httpx.Response:
        options: dict[str, Any] = {} if self.body is None else dict(self.body)
        return client.request(self.method.upper(), self.url, params=dict(self.params), **options)

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.url} {dict(self.params)}"


def settle(farm: ApiFarm, owner: httpx.Client, document: Mapping[str, Any]) -> Estate:
    """A finished job with a failed image, webhook events, a verification, and whatever else
    has a name."""
    estate = Estate(farm.model)
    rows = {
        "items": [{"prompt": f"a {MARK}", "id": f"{MARK}-1"}, {"prompt": f"fail {MARK}"}],
        "model": farm.model,
        "name": f"{MARK} job",
        "metadata": {"about": MARK},
        "webhook": f"https://{MARK}.example/hook",
    }
    job = _made(owner.post("/v1/jobs", json=rows))["id"]
    _work(farm)
    check = _made(owner.post(f"/v1/jobs/{job}/verify", json={"all": True}))["id"]
    _work(farm)
    image = _made(owner.get(f"/v1/jobs/{job}/images/0"))
    event = _made(owner.get(f"/v1/jobs/{job}/webhooks"))["data"][0]["id"]
    estate.names |= {
        "job_id": job, "verify_job": check, "index": "0", "name": farm.model,
        "sha256": image["sha256"], "image_id": image["id"], "event": event, "code": "render_failed",
    }  # fmt: skip
    estate.secrets |= {MARK, job, check, image["id"], image["sha256"]}
    _files(owner, estate, document["paths"])
    _work(farm)
    return estate


def _files(owner: httpx.Client, estate: Estate, paths: Mapping[str, Any]) -> None:
    """What the OpenAI endpoints and the exports keep."""
    file = _made(owner.post("/v1/files", **_upload()))["id"]
    estate.names |= {"file_id": file, "purpose": "batch", "order": "asc"}
    _uploads(owner, estate)
    if "/v1/batches" in paths:
        batch = _made(owner.post("/v1/batches", json=_batch(file)))
        estate.names["batch_id"] = batch["id"]
        wait_until(
            lambda: _made(owner.get(f"/v1/batches/{batch['id']}"))["status"] != "validating",
            seconds=20,
            what="the batch has its job",
        )
    if "/v1/jobs/{job_id}/exports" in paths:
        url = f"/v1/jobs/{estate.names['job_id']}/exports"
        estate.names["export_id"] = _made(owner.post(url, json={"format": "webdataset"}))["id"]
    estate.secrets |= {
        v
        for k, v in estate.names.items()
        if k in ("file_id", "batch_id", "export_id", "upload_id", "part_id")
    }


def _uploads(owner: httpx.Client, estate: Estate) -> None:
    """One to go on with, one to give up."""
    first, second = (_made(owner.post("/v1/uploads", json=_announced()))["id"] for _ in range(2))
    part = _made(owner.post(f"/v1/uploads/{first}/parts", files={"data": MARK}))["id"]
    estate.names |= {"upload_id": first, "part_id": part}
    estate.names["/v1/uploads/{upload_id}/cancel upload_id"] = second


def _announced() -> dict[str, Any]:
    return {
        "bytes": len(MARK), "filename": f"{MARK}.jsonl", "purpose": "batch", "mime_type": "text/x",
    }  # fmt: skip


def _upload() -> dict[str, Any]:
    line = {
        "custom_id": MARK, "method": "POST", "url": "/v1/images/generations",
        "body": {"prompt": f"a {MARK}"},
    }  # fmt: skip
    return {"files": {"file": (f"{MARK}.jsonl", json.dumps(line))}, "data": {"purpose": "batch"}}


def _batch(file: str) -> dict[str, Any]:
    return {
        "input_file_id": file, "endpoint": "/v1/images/generations", "completion_window": "24h",
    }  # fmt: skip


def _made(answer: httpx.Response) -> dict[str, Any]:
    assert answer.is_success, answer.text
    return dict(answer.json())


def _work(farm: ApiFarm) -> None:
    farm.worker.report()
    farm.worker.drain()
    control.finish_ready(farm.db)


def bodies(estate: Estate) -> dict[tuple[str, str], Any]:
    """By operation. What names a thing names the owner's: a stranger's must be refused."""
    return {
        ("post", "/v1/jobs"): {"json": {"prompts": ["a heart"]}},
        ("post", "/v1/images/generations"): {"json": {"prompt": "a heart"}},
        ("post", "/v1/images/edits"): {"data": {"prompt": "a heart"}},
        ("post", "/v1/files"): _upload(),
        ("post", "/v1/uploads"): {"json": _announced()},
        ("post", "/v1/uploads/{upload_id}/parts"): {"files": {"data": "more"}},
        ("post", "/v1/uploads/{upload_id}/complete"): {
            "json": {"part_ids": [estate.names["part_id"]]}
        },
        ("post", "/v1/batches"): {"json": _batch(estate.names["file_id"])},
        ("post", "/v1/jobs/{job_id}/exports"): {"json": {"format": "webdataset"}},
    }


NAMES_THINGS = {("post", "/v1/batches")}  # in the body alone
# What a parameter is filled with where it does not name a thing of the owner.
PLAIN = {
    "limit": "100", "state": "done", "dry_run": "true", "redirect": "true", "prompts": "true",
    "size": "128", "cards": "true", "expires": "9999999999", "signature": "0" * 64,
}  # fmt: skip
SPECIAL = {
    ("/v1/jobs", "state"): "completed",
    ("/v1/exports/{export_id}/files/{name}", "name"): "README.md",
}
CURSORS = {
    "/v1/jobs": "job_id",
    "/v1/files": "file_id",
    "/v1/batches": "batch_id",
    "/v1/exports": "export_id",
    "/v1/jobs/{job_id}/exports": "export_id",
    "/v1/exports/{export_id}/shards": "index",
    "/v1/jobs/{job_id}/webhooks": "event",
    "/v1/jobs/{job_id}/archive": "index",
    "/v1/jobs/{job_id}/verify/{verify_job}": "index",
}


def asks(document: Mapping[str, Any], estate: Estate) -> Iterator[Ask]:
    """Every operation, once with the parameters it needs and once with each other one.
    Raises `LookupError` naming what this module cannot fill in yet: give it a value here."""
    for path, operations in document["paths"].items():
        for method in METHODS:
            if method in operations:
                yield from _operation(method, path, operations[method], estate)


def _operation(method: str, path: str, told: Mapping[str, Any], estate: Estate) -> Iterator[Ask]:
    parameters = told.get("parameters", [])
    values = {p["name"]: _value(path, p, estate) for p in parameters if p["in"] != "header"}
    url = path
    for parameter in parameters:
        if parameter["in"] == "path":
            url = url.replace("{" + parameter["name"] + "}", values[parameter["name"]])
    assert "{" not in url, f"{method} {path}: a parameter of the path is not in the document"
    query = [p for p in parameters if p["in"] == "query"]
    needed = {p["name"]: values[p["name"]] for p in query if p.get("required")}
    optional = [p["name"] for p in query if not p.get("required")]
    body = _body(method, path, told, estate)
    for chosen in itertools.chain([()], ([name] for name in optional)):
        yield Ask(method, path, url, needed | {n: values[n] for n in chosen}, body)


def _value(path: str, parameter: Mapping[str, Any], estate: Estate) -> str:
    name = parameter["name"]
    if name == "after":
        name = CURSORS.get(path, "index" if "{job_id}" in path else "image_id")
    schema = parameter["schema"]
    found = SPECIAL.get((path, name)) or estate.names.get(f"{path} {name}")
    found = found or estate.names.get(name) or PLAIN.get(name)
    if found is None and schema.get("type") == "boolean":
        found = "true"
    if found is None and schema.get("enum"):
        found = str(schema["enum"][0])
    if found is None:
        raise LookupError(f"{path}: nothing to fill the parameter {parameter['name']!r} with")
    return found


def _body(method: str, path: str, told: Mapping[str, Any], estate: Estate) -> Any:
    body = bodies(estate).get((method, path))
    if body is None and told.get("requestBody", {}).get("required"):
        raise LookupError(f"{method.upper()} {path}: no body to send")
    return body
