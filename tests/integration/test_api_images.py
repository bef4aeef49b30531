"""The images of a job over HTTP: pages, single images, bytes, provenance."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace

import PIL.Image
import pytest

from promptmill import jobs, keys
from promptmill.store import images as stored_images
from promptmill.store import jobs as stored_jobs
from tests.integration.api_farm import ApiFarm

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[ApiFarm]:
    with ApiFarm(tmp_path_factory.mktemp("farm"), valkey_url) as served:
        yield served


@pytest.fixture(scope="module")
def job(farm: ApiFarm) -> str:
    """Sixteen images rendered, four of them failed, nine more waiting."""
    rows = [f"{'fail ' if n % 4 == 3 else ''}prompt {n}" for n in range(25)]
    id: str = farm.submit(rows)["id"]
    farm.worker.batch()
    farm.worker.batch()
    return id


def test_an_image_has_the_documented_shape(farm: ApiFarm) -> None:
    row = {"prompt": "a heart", "seed": 5, "size": "32x32", "id": "mine", "label": "red"}
    id = farm.submit([row])["id"]
    waiting = farm.images(id)[0]
    assert waiting["state"] == "queued"
    assert waiting["url"] is waiting["sha256"] is waiting["bytes"] is waiting["error"] is None
    assert waiting["attempts"] == 0
    farm.worker.drain()
    image = farm.http.get(f"/v1/jobs/{id}/images/0").json()
    content = farm.http.get(image["url"]).content
    assert image | {"finished_at": 0.0} == {
        "id": jobs.image_id(id, 0),
        "object": "image",
        "job_id": id,
        "index": 0,
        "row": 0,
        "sample": 0,
        "custom_id": "mine",
        "state": "done",
        "prompt": "a heart",
        "expanded_prompt": "a heart",
        "negative_prompt": "",
        "seed": 5,
        "model": farm.model,
        "fingerprint": "fp-squares-1",
        "width": 32,
        "height": 32,
        "steps": 1,
        "guidance": 0.0,
        "task": "text2image",
        "source": None,
        "mask": None,
        "strength": None,
        "lora": None,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "score": None,
        "below_min_score": None,
        "rerolls": [],
        "url": f"{farm.url}/v1/jobs/{id}/images/0/content",
        "attempts": 1,
        "error": None,
        "metadata": {"label": "red"},
        "render_ms": 1.5,
        "worker": "w1",
        "finished_at": 0.0,
    }


def test_pages_run_in_index_order(farm: ApiFarm, job: str) -> None:
    found, after = [], None
    for _ in range(4):
        query = {"limit": 7} | ({"after": after} if after else {})
        page = farm.http.get(f"/v1/jobs/{job}/images", params=query).json()
        found += [image["index"] for image in page["data"]]
        after = page["last_id"]
    assert found == list(range(25))
    assert page["has_more"] is False


def test_a_cursor_may_be_an_index(farm: ApiFarm, job: str) -> None:
    assert [i["index"] for i in farm.images(job, after="20", limit=3)] == [21, 22, 23]


@pytest.mark.parametrize("after", ["img_other_3", "nonsense", "-1"])
def test_a_foreign_cursor_is_refused(farm: ApiFarm, job: str, after: str) -> None:
    answer = farm.http.get(f"/v1/jobs/{job}/images", params={"after": after})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "after"


def test_images_are_filtered_by_state_and_code(farm: ApiFarm, job: str) -> None:
    failed = farm.images(job, state="failed")
    assert [i["index"] for i in failed] == [3, 7, 11, 15]
    assert failed[0]["error"] == {"code": "render_failed", "message": "no such picture"}
    assert [i["index"] for i in farm.images(job, state="queued")] == list(range(16, 25))
    assert len(farm.images(job, state="done")) == 12
    assert len(farm.images(job, state="failed", code="render_failed")) == 4
    assert farm.images(job, state="failed", code="other") == []


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 1001}, {"state": "lost"}])
def test_bad_queries_are_refused_by_name(
    farm: ApiFarm, job: str, query: dict[str, str | int]
) -> None:
    answer = farm.http.get(f"/v1/jobs/{job}/images", params=query)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith(next(iter(query)))


def test_content_is_the_picture(farm: ApiFarm, job: str) -> None:
    answer = farm.http.get(f"/v1/jobs/{job}/images/0/content")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    digest = hashlib.sha256(answer.content).hexdigest()
    assert answer.headers["etag"] == f'"{digest}"'
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert PIL.Image.open(io.BytesIO(answer.content)).size == (64, 64)
    known = {"if-none-match": answer.headers["etag"]}
    assert farm.http.get(f"/v1/jobs/{job}/images/0/content", headers=known).status_code == 304


@pytest.mark.parametrize("index", [3, 24, 25, 10**15])
def test_what_has_no_bytes_is_not_found(farm: ApiFarm, job: str, index: int) -> None:
    answer = farm.http.get(f"/v1/jobs/{job}/images/{index}/content")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_a_lost_object_is_not_found_rather_than_empty(farm: ApiFarm) -> None:
    id = farm.submit(["gone soon"])["id"]
    farm.worker.drain()
    stored = stored_jobs.get(farm.db, None, id)
    farm.blobs.delete([keys.image(stored.output, id, generation=0, index=0)])
    answer = farm.http.get(f"/v1/jobs/{id}/images/0/content")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_an_image_inside_a_part_is_a_range_read(farm: ApiFarm) -> None:
    id = farm.submit(["a heart"])["id"]
    farm.worker.drain()
    whole = farm.http.get(f"/v1/jobs/{id}/images/0/content").content
    stored = stored_jobs.get(farm.db, None, id)
    part = keys.part(replace(stored.output, packing="tar"), id, generation=0, lease="l")
    farm.blobs.create(part, b"head" + whole + b"tail", content_type="x", metadata={})
    stored_images.relocate(farm.db, stored, 0, key=part, offset=4, length=len(whole))
    answer = farm.http.get(f"/v1/jobs/{id}/images/0/content", params={"redirect": "true"})
    assert (answer.status_code, answer.content) == (200, whole)


def test_provenance_finds_the_row_behind_a_picture(farm: ApiFarm, job: str) -> None:
    image = farm.images(job, limit=1)[0]
    answer = farm.http.get("/v1/provenance", params={"sha256": image["sha256"].upper()})
    assert [(i["job_id"], i["index"]) for i in answer.json()["data"]] == [(job, 0)]
    none = farm.http.get("/v1/provenance", params={"sha256": "0" * 64}).json()
    assert (none["data"], none["has_more"]) == ([], False)
    assert farm.http.get("/v1/provenance", params={"sha256": "xyz"}).status_code == 400
