"""An image's `url` opens from outside without a key: by the store's signature on S3, by the
farm's own elsewhere; and the content route serves ranges and headers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from promptmill import keys
from promptmill.store import images as stored_images
from promptmill.store import jobs as stored_jobs
from promptmill.store import tenants
from tests.integration.api_farm import ApiFarm

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[ApiFarm]:
    """A farm with keys, and a tenant that uses it."""
    with ApiFarm(tmp_path_factory.mktemp("farm"), valkey_url, auth="keys") as served:
        _, secret = tenants.create_key(served.db, "me")
        served.http.headers["authorization"] = f"Bearer {secret}"
        yield served


@pytest.fixture(scope="module")
def job(farm: ApiFarm) -> str:
    id: str = farm.submit(["a heart", "a star"])["id"]
    farm.worker.drain()
    return id


@pytest.fixture(scope="module")
def picture(farm: ApiFarm, job: str) -> bytes:
    return farm.http.get(f"/v1/jobs/{job}/images/0/content").content


def path(job: str, index: int = 0) -> str:
    return f"/v1/jobs/{job}/images/{index}/content"


def test_the_url_of_an_image_opens_without_a_key(farm: ApiFarm, job: str, picture: bytes) -> None:
    url = farm.images(job)[0]["url"]
    answer = httpx.get(url)
    assert (answer.status_code, answer.content) == (200, picture)
    expires = int(parse_qs(urlsplit(url).query)["expires"][0])
    assert 3600 <= expires - time.time() <= 3600 + 600 + 1
    assert httpx.get(f"{farm.url}{path(job)}").status_code == 401, "and nothing else does"


@pytest.mark.parametrize("change", ["index", "job", "expires", "signature", "route"])
def test_a_link_opens_its_image_only(farm: ApiFarm, job: str, change: str) -> None:
    other = farm.submit(["another"])["id"]
    farm.worker.drain()
    url = farm.images(job)[0]["url"]
    changed = {
        "index": url.replace("/0/content", "/1/content"),
        "job": url.replace(job, other),
        "expires": url.replace("expires=", "expires=1"),
        "signature": url[:-4] + ("0000" if not url.endswith("0000") else "1111"),
        "route": url.replace("/content", ""),
    }[change]
    answer = httpx.get(changed)
    assert answer.status_code == (401 if change == "route" else 403)
    assert answer.json()["error"]["code"] in ("forbidden", "invalid_api_key")


def test_a_link_expires(farm: ApiFarm, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.links.LINK_SECONDS", -1200.0)
    url = farm.images(job)[0]["url"]
    answer = httpx.get(url)
    assert answer.status_code == 403
    assert "expired" in answer.json()["error"]["message"]


def test_a_picture_inside_a_part_has_a_link_as_well(farm: ApiFarm) -> None:
    id = farm.submit(["packed"])["id"]
    farm.worker.drain()
    whole = farm.http.get(path(id)).content
    stored = stored_jobs.get(farm.db, None, id)
    part = keys.part(replace(stored.output, packing="tar"), id, generation=0, lease="l")
    farm.blobs.create(part, b"head" + whole + b"tail", content_type="x", metadata={})
    stored_images.relocate(farm.db, stored, 0, key=part, offset=4, length=len(whole))
    url = farm.images(id)[0]["url"]
    assert httpx.get(url).content == whole
    tail = httpx.get(url, headers={"range": "bytes=-5"})
    assert (tail.status_code, tail.content) == (206, whole[-5:]), "never the neighbour's bytes"
    far = httpx.get(url, headers={"range": f"bytes={len(whole) - 2}-{len(whole) + 90}"})
    assert far.content == whole[-2:]


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("bytes=0-0", 0, 0), ("bytes=10-19", 10, 19), ("bytes=5-", 5, None), ("bytes=-7", -7, None)],
)
def test_a_range_is_served(
    farm: ApiFarm, job: str, picture: bytes, *, asked: str, first: int, last: int | None
) -> None:
    answer = farm.http.get(path(job), headers={"range": asked})
    wanted = picture[first : None if last is None else last + 1]
    begin = first % len(picture)
    assert answer.status_code == 206
    assert answer.content == wanted
    told = f"bytes {begin}-{begin + len(wanted) - 1}/{len(picture)}"
    assert answer.headers["content-range"] == told
    assert answer.headers["etag"] == f'"{hashlib.sha256(picture).hexdigest()}"'


def test_a_range_behind_the_end_is_refused(farm: ApiFarm, job: str, picture: bytes) -> None:
    answer = farm.http.get(path(job), headers={"range": f"bytes={len(picture)}-"})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(picture)}"
    assert answer.json()["error"]["code"] == "range_not_satisfiable"


@pytest.mark.parametrize("asked", ["bytes=0-1,3-4", "bytes=9-3", "bytes=-", "lines=1-2", "x"])
def test_what_is_no_single_range_gets_the_whole(
    farm: ApiFarm, job: str, picture: bytes, asked: str
) -> None:
    answer = farm.http.get(path(job), headers={"range": asked})
    assert (answer.status_code, answer.content) == (200, picture)


def test_conditions_look_at_the_hash(farm: ApiFarm, job: str, picture: bytes) -> None:
    tag = f'"{hashlib.sha256(picture).hexdigest()}"'
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = farm.http.get(path(job), headers={"if-none-match": known})
        assert (answer.status_code, answer.content) == (304, b"")
    other = {"range": "bytes=0-3", "if-range": '"other"'}
    assert farm.http.get(path(job), headers=other).content == picture
    same = {"range": "bytes=0-3", "if-range": tag}
    assert farm.http.get(path(job), headers=same).content == picture[:4]


def test_head_tells_and_sends_nothing(farm: ApiFarm, job: str, picture: bytes) -> None:
    answer = httpx.head(farm.images(job)[0]["url"])
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) == len(picture)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-disposition"] == f'inline; filename="{job}-000000000.png"'
    stored = stored_jobs.get(farm.db, None, job)
    farm.blobs.delete([keys.image(stored.output, job, generation=0, index=1)])
    assert farm.http.head(path(job, 1)).status_code == 404
