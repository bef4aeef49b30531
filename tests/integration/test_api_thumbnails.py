"""Small copies of pictures, and failed images as rows to submit again."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Iterator

import PIL.Image
import pytest

from api import thumbnails
from promptmill import errors, records
from promptmill.store import control
from tests.integration.api_farm import ApiFarm


def noise(width: int, height: int, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    PIL.Image.frombytes("RGB", (width, height), os.urandom(width * height * 3)).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_a_large_picture_becomes_a_small_webp(kind: str) -> None:
    made = thumbnails.make(noise(600, 300, kind), 128)
    picture = PIL.Image.open(io.BytesIO(made.data))
    assert (made.media_type, picture.format, picture.size) == ("image/webp", "WEBP", (128, 64))


def test_a_small_picture_is_its_own_thumbnail_and_never_enlarged() -> None:
    small, wide = noise(64, 64), noise(100, 100)
    assert thumbnails.make(small, 128) == thumbnails.Thumbnail(small, "image/png")
    made = thumbnails.make(wide, 128)  # it fits, but its bytes are many
    assert len(made.data) < len(wide)
    assert PIL.Image.open(io.BytesIO(made.data)).size == (100, 100)


def test_bytes_that_are_no_picture_are_refused() -> None:
    for bad in (b"", b"nonsense", noise(64, 64)[:500]):
        with pytest.raises(errors.NotFound):
            thumbnails.make(bad, 16)


def test_what_is_kept_is_bounded_and_made_once() -> None:
    picture = noise(64, 64)
    kept = thumbnails.Thumbnails(held=3 * len(picture))
    reads: list[int] = []

    def read(n: int) -> bytes:
        reads.append(n)
        return picture

    for n in (0, 1, 2, 0, 3, 0, 1):
        kept.get(bytes([n]), 128, lambda n=n: read(n))  # type: ignore[misc]
        assert kept.bytes <= 3 * len(picture)
    assert reads == [0, 1, 2, 3, 1]  # 0 was asked for again and again, so 1 had to go

    many = thumbnails.Thumbnails()
    threads = [
        threading.Thread(target=lambda: many.get(b"x", 128, lambda: read(9))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert many.bytes == len(picture)


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[ApiFarm]:
    with ApiFarm(tmp_path_factory.mktemp("farm"), valkey_url) as served:
        yield served


@pytest.mark.servers
def test_a_thumbnail_can_be_kept_for_ever(farm: ApiFarm) -> None:
    id = farm.submit(["a heart", "fail this"])["id"]
    path = f"/v1/jobs/{id}/images/0/thumbnail"
    assert farm.http.get(path).status_code == 404
    farm.worker.drain()
    answer = farm.http.get(path, params={"size": 128})
    assert PIL.Image.open(io.BytesIO(answer.content)).size == (64, 64)
    assert "immutable" in answer.headers["cache-control"]
    again = farm.http.get(
        path, params={"size": 128}, headers={"if-none-match": answer.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")
    assert farm.http.get(path, params={"size": 129}).status_code == 400
    assert farm.http.get(f"/v1/jobs/{id}/images/1/thumbnail").status_code == 404
    assert farm.http.get(f"/v1/jobs/{id}/images/7/thumbnail").status_code == 404


@pytest.mark.servers
def test_failed_rows_are_taken_back_by_submit(farm: ApiFarm) -> None:
    rows = [
        "a heart",
        {"prompt": "fail A", "seed": 7, "size": "32x32", "id": "mine", "label": "red"},
        {"prompt": "fail B", "negative_prompt": "blur", "steps": 3, "lora": "ink", "n": 2},
    ]
    id = farm.submit(rows)["id"]
    path = f"/v1/jobs/{id}/failures/rows"
    assert farm.http.get(path).text == ""
    farm.worker.drain()
    control.finish_ready(farm.db)
    answer = farm.http.get(path)
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert f"{id}-failed.jsonl" in answer.headers["content-disposition"]
    told = [json.loads(line) for line in answer.text.splitlines()]
    assert [row["prompt"] for row in told] == ["fail A", "fail B", "fail B"]
    assert farm.http.get(path, params={"code": "no_such"}).text == ""
    reasons = farm.http.get(path, params={"reasons": "true"}).text
    found = [json.loads(line) for line in reasons.splitlines()]
    assert [row.pop("_error") for row in found] == [
        {
            "code": "render_failed",
            "message": "no such picture",
            "job": id,
            "index": index,
            "row": row,
            "sample": sample,
        }
        for index, row, sample in ((1, 1, 0), (2, 2, 0), (3, 2, 1))
    ]
    assert found == told
    again = farm.http.post(
        "/v1/jobs",
        params={"steps": 9, "seed": 1, "size": "64x64"},
        content=answer.content,
        headers={"content-type": "application/x-ndjson"},
    )
    assert again.status_code == 202, again.text
    wanted = (
        "prompt",
        "seed",
        "negative_prompt",
        "steps",
        "lora",
        "width",
        "custom_id",
        "metadata",
    )
    old = [image for image in farm.images(id) if image["state"] == "failed"]
    new = farm.images(again.json()["id"])
    assert [[i[k] for k in wanted] for i in new] == [[i[k] for k in wanted] for i in old]
    assert [image["lora"] for image in new] == [None, "ink", "ink"]


@pytest.mark.servers
def test_a_picture_in_a_tar_part_has_a_thumbnail(farm: ApiFarm) -> None:
    """Two pictures in one object: each is cut out by its offset."""
    from promptmill import jobs, keys
    from promptmill.store import images as stored_images

    farm.worker.drain()
    id = farm.submit(["one", "two"])["id"]
    lease = farm.queue.lease("w1", 8, ttl=30.0)
    assert lease is not None
    works = stored_images.fetch(farm.db, lease.spans, stored_images.SegmentCache())
    pictures = [noise(200, 100), noise(100, 200)]
    key = keys.part(works[0].output, id, generation=0, lease="l1")
    stored = farm.blobs.create(
        key, b"".join(pictures), content_type="application/x-tar", metadata={}
    )
    assert stored.created
    results = [
        records.Result(
            job_id=work.job_id,
            lane=work.lane,
            position=work.position,
            index=work.item.index,
            generation=work.generation,
            state=jobs.ImageState.DONE,
            attempt=0,
            seed=work.item.seed,
            worker="w1",
            fingerprint="fp",
            render_ms=1.0,
            key=key,
            offset=0 if work.item.index == 0 else len(pictures[0]),
            length=len(pictures[work.item.index]),
            sha256=bytes([work.item.index]) * 32,
            bytes=len(pictures[work.item.index]),
        )
        for work in works
    ]
    stored_images.commit(farm.db, results, shard=0)
    farm.queue.ack(lease.id)
    sizes = [
        PIL.Image.open(
            io.BytesIO(
                farm.http.get(f"/v1/jobs/{id}/images/{n}/thumbnail", params={"size": 128}).content
            )
        ).size
        for n in range(2)
    ]
    assert sizes == [(128, 64), (64, 128)]
