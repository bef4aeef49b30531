"""Pictures in bulk, by the API and by the SDK: on SQLite with a folder, on Postgres with an
S3 store, as objects of their own and inside tar parts."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from promptmill import errors, keys
from promptmill.blobs import tar
from promptmill.client import Client
from promptmill.store import images as stored_images
from promptmill.store import jobs as stored_jobs
from promptmill.store import tenants
from tests.integration.api_farm import ApiFarm
from tests.servers import Bucket

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]

ROWS = [f"{'fail ' if n % 10 == 3 else ''}prompt {n}" for n in range(40)]
DONE = [n for n in range(40) if n % 10 != 3]


@pytest.fixture(params=["folder", "s3"])
def farm(request: pytest.FixtureRequest, tmp_path: Path, redis7_url: str) -> Iterator[ApiFarm]:
    options: dict[str, Any] = {}
    if request.param == "s3":
        new_postgres_db: Callable[[], str] = request.getfixturevalue("new_postgres_db")
        s3: Bucket = request.getfixturevalue("s3")
        bucket = s3.fresh()
        options = {
            "database_url": new_postgres_db(),
            "storage_url": bucket.storage_url,
            "s3_endpoint_url": bucket.endpoint_url,
        }
    with ApiFarm(tmp_path / "farm", redis7_url, **options) as served:
        yield served


@pytest.fixture(params=["image", "tar"])
def job(request: pytest.FixtureRequest, farm: ApiFarm) -> str:
    """Forty images, four failed; packed, those of even and of odd index in a part each."""
    id: str = farm.submit(ROWS, packing=request.param)["id"]
    farm.worker.drain()
    if request.param == "tar":
        for number in range(2):
            _pack(farm, id, [n for n in DONE if n % 2 == number], f"lease{number}")
    return id


def _pack(farm: ApiFarm, id: str, indexes: Sequence[int], lease: str) -> None:
    """Moves images into a part, as a lease of a tar job would have stored them."""
    stored = stored_jobs.get(farm.db, None, id)
    samples, old = [], []
    for index in indexes:
        image = stored_images.get(farm.db, stored, index)
        assert image.key is not None
        data = farm.blobs.read(image.key)
        samples.append(tar.Sample(index, data, "png", image.item.prompt, {"key": index}))
        old.append(image.key)
    part, places = tar.pack(samples)
    key = keys.part(stored.output, id, generation=0, lease=lease)
    farm.blobs.create(key, part, content_type=tar.CONTENT_TYPE, metadata={})
    for index, (offset, length) in zip(indexes, places, strict=True):
        stored_images.relocate(farm.db, stored, index, key=key, offset=offset, length=length)
    farm.blobs.delete(old)


def _key(farm: ApiFarm, id: str, index: int) -> str:
    stored = stored_jobs.get(farm.db, None, id)
    key = stored_images.get(farm.db, stored, index).key
    assert key is not None
    return key


def _replace(farm: ApiFarm, key: str, data: bytes) -> None:
    farm.blobs.delete([key])
    farm.blobs.create(key, data, content_type="image/png", metadata={})


def _members(answer: httpx.Response) -> dict[str, bytes]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-tar"
    found = {}
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            found[member.name] = file.read()
    return found


def _watched(farm: ApiFarm, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that the API reads from now on."""
    blobs = farm.app.state.farm.blobs
    real, seen = blobs.read, []

    def read(key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        seen.append(key)
        return bytes(real(key, offset=offset, length=length))

    monkeypatch.setattr(blobs, "read", read)
    return seen


def test_an_archive_holds_what_the_images_hold(farm: ApiFarm, job: str) -> None:
    answer = farm.http.get(f"/v1/jobs/{job}/archive")
    members = _members(answer)
    assert list(members) == [f"{n:09d}.png" for n in DONE]
    for n in (0, 1, 20, 39):
        content = farm.http.get(f"/v1/jobs/{job}/images/{n}/content").content
        assert members[f"{n:09d}.png"] == content
    head = {name: answer.headers[name] for name in ("x-images", "x-last-index", "x-has-more")}
    assert head == {"x-images": "36", "x-last-index": "39", "x-has-more": "false"}


def test_archives_follow_each_other(farm: ApiFarm, job: str) -> None:
    names: list[str] = []
    query: dict[str, str] = {"limit": "15"}
    for more in ("true", "true", "false"):
        answer = farm.http.get(f"/v1/jobs/{job}/archive", params=query)
        names += _members(answer)
        query["after"] = answer.headers["x-last-index"]
        assert answer.headers["x-has-more"] == more
    assert names == [f"{n:09d}.png" for n in DONE]
    past = farm.http.get(f"/v1/jobs/{job}/archive", params={"after": 39})
    assert (_members(past), past.headers["x-images"]) == ({}, "0")
    assert "x-last-index" not in past.headers


def test_a_part_is_read_once_for_all_its_neighbours(
    farm: ApiFarm, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = {_key(farm, job, n) for n in DONE}
    seen = _watched(farm, monkeypatch)
    _members(farm.http.get(f"/v1/jobs/{job}/archive"))
    assert sorted(seen) == sorted(objects)


def test_a_download_brings_all_and_after_half_the_other_half(
    farm: ApiFarm, job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _watched(farm, monkeypatch)
    with Client(farm.url) as client:
        first = client.job(job).download(tmp_path / "out")
        assert (first.present, first.fetched, first.failed) == (36, 36, 4)
        whole = {path.name: path.read_bytes() for path in (tmp_path / "out/images").iterdir()}
        assert sorted(whole) == [f"{n:09d}.png" for n in DONE]
        assert len(seen) == len({_key(farm, job, n) for n in DONE})
        for n in DONE[18:]:
            (tmp_path / "out/images" / f"{n:09d}.png").unlink()
        again = client.job(job).download(tmp_path / "out")
        assert (again.present, again.fetched) == (36, 18)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out/images").iterdir()} == whole


def test_one_lost_and_one_damaged_object_cost_no_other_image(
    farm: ApiFarm, job: str, tmp_path: Path
) -> None:
    """Two images: of a packed job, the last of one part and one in the midst of the other."""
    last = max(n for n in DONE if n % 2 == 0)
    key = _key(farm, job, last)
    image = stored_images.get(farm.db, stored_jobs.get(farm.db, None, job), last)
    if image.length is None:
        farm.blobs.delete([key])
    else:
        part = farm.blobs.read(key)
        _replace(farm, key, part[: (image.offset or 0) + 10])
    other = stored_images.get(farm.db, stored_jobs.get(farm.db, None, job), 21)
    assert other.key is not None
    bad = bytearray(farm.blobs.read(other.key))
    bad[(other.offset or 0) + 20] ^= 1
    _replace(farm, other.key, bytes(bad))

    members = _members(farm.http.get(f"/v1/jobs/{job}/archive"))
    assert sorted(members) == [f"{n:09d}.png" for n in DONE if n != last]
    with Client(farm.url) as client, pytest.raises(errors.Error, match=r"image 21 .*damaged"):
        client.job(job).download(tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out/images").iterdir())
    assert names == [f"{n:09d}.png" for n in DONE if n not in (last, 21)]


def test_a_store_that_is_down_is_an_error_and_no_archive(
    farm: ApiFarm, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(key: str, **_: object) -> bytes:
        raise errors.StorageDown("no store answers")

    monkeypatch.setattr(farm.app.state.farm.blobs, "read", read)
    answer = farm.http.get(f"/v1/jobs/{job}/archive")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, errors.StorageDown.code)
    assert int(answer.headers["retry-after"]) >= 1


def test_a_store_that_fails_in_the_midst_cuts_the_archive_not_the_download(
    farm: ApiFarm, job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs, down = farm.app.state.farm.blobs, [True, True]
    seen = _watched(farm, monkeypatch)
    watched = blobs.read

    def read(key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        if len(seen) >= 10 and down:
            down.pop()
            raise errors.StorageDown("no store answers")
        return bytes(watched(key, offset=offset, length=length))

    monkeypatch.setattr(blobs, "read", read)
    monkeypatch.setattr("promptmill.blobs.gather.WINDOW", 1)
    monkeypatch.setattr("api.archives.CHUNK", 1)
    with (
        pytest.raises(httpx.RemoteProtocolError),
        farm.http.stream("GET", f"/v1/jobs/{job}/archive") as answer,
    ):
        answer.read()
    with Client(farm.url) as client:
        result = client.job(job).download(tmp_path / "out")
    assert (result.present, down) == (36, [])


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 1001}, {"after": -1}, {"after": "x"}])
def test_bad_archive_queries_are_refused_by_name(
    tmp_path: Path, valkey_url: str, query: dict[str, str | int]
) -> None:
    with ApiFarm(tmp_path, valkey_url) as farm:
        id = farm.submit(["one"])["id"]
        answer = farm.http.get(f"/v1/jobs/{id}/archive", params=query)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == next(iter(query))


def test_an_archive_is_its_tenants_own(tmp_path: Path, valkey_url: str) -> None:
    with ApiFarm(tmp_path, valkey_url, auth="keys") as farm:
        heads = {
            name: {"authorization": f"Bearer {tenants.create_key(farm.db, name)[1]}"}
            for name in ("anna", "boris")
        }
        body = {"prompts": ["a heart"], "model": farm.model}
        id = farm.http.post("/v1/jobs", json=body, headers=heads["anna"]).json()["id"]
        farm.worker.drain()
        path = f"/v1/jobs/{id}/archive"
        assert len(_members(farm.http.get(path, headers=heads["anna"]))) == 1
        other = farm.http.get(path, headers=heads["boris"])
        unknown = farm.http.get("/v1/jobs/job_unknown/archive", headers=heads["boris"])
        assert (other.status_code, unknown.status_code) == (404, 404)
        assert other.text == unknown.text.replace("job_unknown", id)
        assert farm.http.get(path).status_code == 401
        described = farm.http.get("/openapi.json").json()["paths"]["/v1/jobs/{job_id}/archive"]
        assert list(described["get"]["responses"]["200"]["content"]) == ["application/x-tar"]


def test_large_pictures_do_not_pile_up(
    tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the answer is not read, only what fits a window and the sockets is."""
    with ApiFarm(tmp_path, valkey_url) as farm:
        id = farm.submit([f"prompt {n}" for n in range(60)])["id"]
        farm.worker.drain()
        blobs, reads = farm.app.state.farm.blobs, []

        def read(key: str, **_: object) -> bytes:
            reads.append(key)
            return bytes(1_000_000)

        monkeypatch.setattr(blobs, "read", read)
        monkeypatch.setattr("promptmill.blobs.gather.WINDOW", 1)
        with farm.http.stream("GET", f"/v1/jobs/{id}/archive") as answer:
            pieces = answer.iter_raw()
            next(pieces)
            assert len(reads) < 30
            assert sum(map(len, pieces)) > 58_000_000
        assert len(reads) == 60
