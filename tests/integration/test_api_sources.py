"""Which pictures a tenant may start from, and that a refusal names line and field and leaves
nothing behind."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from promptmill import errors, keys, models
from promptmill.client import Client
from promptmill.settings import Settings, read
from promptmill.store import jobs as stored_jobs
from promptmill.store import models as stored_models
from promptmill.store import tenants
from tests.integration import api_farm
from tests.integration.api_farm import ApiFarm

pytestmark = pytest.mark.servers


def png(colour: str = "red", side: int = 8) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[ApiFarm]:
    folder = tmp_path_factory.mktemp("farm")
    options = {"auth": "keys", "source_prefixes": "inputs/{tenant}, shared"}
    with ApiFarm(folder, valkey_url, **options) as served:
        caps = replace(api_farm.CAPS, tasks=("text2image", "img2img", "inpaint", "variation"))
        stored_models.register(served.db, models.Model(served.model, caps, "fp"))
        for name in ("ann", "bob"):
            _, secret = tenants.create_key(served.db, name)
            served.http.headers["authorization"] = f"Bearer {secret}"  # bob's in the end
            if name == "ann":
                made = served.submit(["a picture of ann's"])["id"]
                served.worker.drain()
                served.anns = f"img_{made.removeprefix('job_')}_0"  # type: ignore[attr-defined]
        for key, data in {
            "inputs/ann/cat.png": png(),
            "inputs/bob/cat.png": png(),
            "inputs/bob/note.txt": b"no picture",
            "inputs/bob/large.png": png() + bytes(33 << 20),
            "shared/dog.png": png("blue"),
        }.items():
            served.blobs.create(key, data, content_type="image/png", metadata={})
        yield served


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("anns", "there is no job"),
        ("img_nothing_0", "there is no job"),
        ("img_", "there is no image"),
        ("inputs/ann/cat.png", "below an allowed prefix"),
        ("inputs/bob/../ann/cat.png", "cannot name an object"),
        ("inputs/bobby/cat.png", "below an allowed prefix"),
        ("inputs/bob", "below an allowed prefix"),
        ("inputs/bob/none.png", "there is no such object"),
        ("inputs/bob/note.txt", "no PNG, JPEG or WebP"),
        ("inputs/bob/large.png", "33,55"),
        ("https://example.org/cat.png", "below an allowed prefix"),
        ("cat.png", "below an allowed prefix"),
        ("job_nothing/" + "0" * 64, "there is no job"),
    ],
)
def test_what_is_not_the_tenants_own_picture_is_refused(
    farm: ApiFarm, source: str, message: str
) -> None:
    source = farm.anns if source == "anns" else source  # type: ignore[attr-defined]
    before = farm.footprint()
    good = {"prompt": "fine", "task": "img2img", "source": "inputs/bob/cat.png"}
    answer = farm.post_rows([good, {**good, "source": source}])
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["line"], error["param"], error["code"]) == (2, "source", "invalid_row")
    assert message in error["message"]
    assert farm.footprint() == before
    plan = farm.post_rows([good, {**good, "source": source}], dry_run="true").json()
    assert [(p["line"], p["field"]) for p in plan["problems"]["data"]] == [(2, "source")]
    assert farm.footprint() == before


def test_own_and_shared_pictures_are_copied_to_the_job(farm: ApiFarm) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "a", "source": "inputs/bob/cat.png", "mask": "shared/dog.png"}
    ]
    made = farm.submit(rows * 3, task="inpaint", strength="1")["id"]
    job = stored_jobs.get(farm.db, None, made)
    pair = (hashlib.sha256(png()).hexdigest(), hashlib.sha256(png("blue")).hexdigest())
    copied = {stored.key for stored in farm.blobs.list(keys.sources(job.output, made))}
    assert copied == {keys.source(job.output, made, sha256=sha256) for sha256 in pair}
    assert {(i["source"], i["mask"]) for i in farm.images(made)} == {pair}
    farm.worker.drain()
    image = farm.images(made)[0]["id"]
    again = farm.submit([{"prompt": "b", "task": "img2img", "source": image}])
    assert again["counts"]["total"] == 1
    copy = {"prompt": "c", "task": "img2img", "source": f"{made}/{pair[0]}"}
    assert farm.images(farm.submit([copy])["id"])[0]["source"] == pair[0]


def test_a_variation_of_an_image_needs_no_prompt(farm: ApiFarm) -> None:
    made = farm.submit(["a red kite"])["id"]
    farm.worker.drain()
    [image] = farm.images(made)
    row = {"task": "variation", "source": image["id"], "seed": 7}
    [plan] = farm.post_rows([row], dry_run="true").json()["first"]
    assert plan["prompt"] == "a red kite"
    [again] = farm.images(farm.submit([row])["id"])
    assert (again["prompt"], again["seed"]) == ("a red kite", 7)
    assert again["source"] == image["sha256"]
    for source, param in (("shared/dog.png", "prompt"), (farm.anns, "source")):  # type: ignore[attr-defined]
        answer = farm.post_rows([row, {**row, "source": source}])
        error = answer.json()["error"]
        assert (answer.status_code, error["line"], error["param"]) == (400, 2, param)
    farm.worker.drain()


def test_failed_rows_name_their_jobs_copies_and_can_be_sent_again(farm: ApiFarm) -> None:
    row = {"prompt": "fail here", "task": "img2img", "source": "inputs/bob/cat.png"}
    made = farm.submit([row])["id"]
    farm.worker.drain()
    lines = farm.http.get(f"/v1/jobs/{made}/failures/rows").text
    assert json.loads(lines)["source"] == f"{made}/{hashlib.sha256(png()).hexdigest()}"
    answer = farm.post_rows([json.loads(lines)])
    assert answer.status_code == 202, answer.text
    farm.worker.drain()


def test_local_pictures_are_uploaded_once_by_the_client(farm: ApiFarm, tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(png("green"))
    sha256 = hashlib.sha256(png("green")).hexdigest()
    with Client(farm.url, farm.http.headers["authorization"].split()[1]) as client:
        rows = [{"prompt": "a", "source": path}, {"prompt": "b", "source": str(path)}, "c"]
        made = client.submit(rows, task="img2img", source="inputs/bob/cat.png")
        assert [i["source"] for i in farm.images(made.id)[:2]] == [sha256] * 2
        assert farm.images(made.id)[2]["source"] == hashlib.sha256(png()).hexdigest()
        other = client.submit(["d"], task="img2img", source=str(path))
        assert farm.images(other.id)[0]["source"] == sha256
        with pytest.raises(errors.BadRequest, match="cannot read"):
            client.submit([{"prompt": "a", "task": "img2img", "source": tmp_path / "none.png"}])
    assert len(farm.http.get("/v1/files").json()["data"]) == 1
    farm.worker.drain()


def test_an_image_that_is_not_done_is_no_source(farm: ApiFarm) -> None:
    made = farm.submit(["not yet"])["id"]
    image = farm.images(made)[0]["id"]
    answer = farm.post_rows([{"prompt": "a", "task": "img2img", "source": image}])
    assert "this image is queued" in answer.json()["error"]["message"]
    farm.worker.drain()


def test_an_upload_that_falls_silent_leaves_its_copies_to_the_sweep(farm: ApiFarm) -> None:
    rows = '{"prompt": "a", "task": "img2img", "source": "inputs/bob/cat.png"}\n'

    def broken() -> Iterator[bytes]:
        yield rows.encode()
        raise ConnectionError

    before = farm.footprint()
    with pytest.raises(ConnectionError):
        farm.http.post("/v1/jobs", content=broken(), headers={"content-type": "application/jsonl"})
    api_farm.wait_until(lambda: farm.footprint() == before, seconds=15, what="nothing is left")


@pytest.mark.parametrize("prefixes", ["/", "jobs", "jobs/{tenant}", "inputs,jobs/x"])
def test_the_setting_cannot_open_the_pictures_of_all(prefixes: str) -> None:
    assert Settings().source_prefixes == ""
    with pytest.raises(errors.SettingInvalid, match="SOURCE_PREFIXES"):
        read({"PROMPTMILL_SOURCE_PREFIXES": prefixes})
