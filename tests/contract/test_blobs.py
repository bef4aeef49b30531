"""One contract for every store: memory, folder, S3 (SeaweedFS), and an S3 that ignores
`If-None-Match`."""

from __future__ import annotations

import hashlib
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from promptmill import errors
from promptmill.blobs import BlobStore, New, open_store
from promptmill.blobs.fake import MemoryBlobs
from promptmill.blobs.folder import DirBlobs
from promptmill.blobs.s3 import S3Blobs
from promptmill.settings import Settings
from tests.servers import Bucket

pytestmark = pytest.mark.servers
PNG = "image/png"


def s3_store(bucket: Bucket) -> S3Blobs:
    return S3Blobs(bucket.bucket, prefix=bucket.prefix, endpoint_url=bucket.endpoint_url)


@pytest.fixture(params=["memory", "folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStore]:
    made: BlobStore
    if request.param == "memory":
        made = MemoryBlobs()
    elif request.param == "folder":
        made = DirBlobs(tmp_path / "objects")
    else:
        made = s3_store(request.getfixturevalue("s3").fresh())
    yield made
    made.close()


def put(store: BlobStore, key: str, data: bytes, **metadata: str):  # type: ignore[no-untyped-def]
    return store.create(key, data, content_type=PNG, metadata=metadata)


def test_created_object_is_there_with_all_that_was_said(store: BlobStore) -> None:
    made = put(store, "jobs/j/g0/000000001.png", b"picture", seed="7", score="0.5")
    assert (made.created, made.key, made.size) == (True, "jobs/j/g0/000000001.png", 7)
    there = store.head("jobs/j/g0/000000001.png")
    assert there is not None
    assert not there.created
    assert there.sha256 == made.sha256 == hashlib.sha256(b"picture").hexdigest()
    assert there.size == 7
    assert there.metadata == made.metadata == {"seed": "7", "score": "0.5"}
    assert there.modified == pytest.approx(made.modified, abs=60)


def test_second_creation_adopts_the_first(store: BlobStore) -> None:
    put(store, "a/b.png", b"first", seed="1", fingerprint="x")
    adopted = put(store, "a/b.png", b"second one", seed="2")
    assert not adopted.created
    assert adopted.sha256 == hashlib.sha256(b"first").hexdigest()
    assert adopted.size == 5
    assert adopted.metadata == {"seed": "1", "fingerprint": "x"}
    assert store.read("a/b.png") == b"first"
    again = store.head("a/b.png")
    assert again is not None
    assert again.metadata == {"seed": "1", "fingerprint": "x"}


def test_same_bytes_again_are_adopted(store: BlobStore) -> None:
    assert put(store, "a", b"same", seed="1").created
    again = put(store, "a", b"same", seed="1")
    assert (again.created, again.metadata) == (False, {"seed": "1"})


def test_many_writers_of_one_key_agree_on_one(store: BlobStore) -> None:
    barrier = threading.Barrier(6)

    def write(writer: int):  # type: ignore[no-untyped-def]
        barrier.wait(10)
        return put(store, "race/x.png", b"%d" % writer * 1000, writer=str(writer))

    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(write, range(6)))
    assert sum(one.created for one in got) == 1
    assert len({one.sha256 for one in got}) == 1
    winner = next(one for one in got if one.created).metadata["writer"]
    assert {one.metadata["writer"] for one in got} == {winner}
    assert store.read("race/x.png") == winner.encode() * 1000


def test_create_many_in_order_with_adoption(store: BlobStore) -> None:
    put(store, "m/000000003.png", b"old", seed="0")
    new = [New(f"m/{i:09d}.png", b"%d" % i, PNG, {"seed": str(i)}) for i in range(70)]
    got = store.create_many(new)
    assert [one.key for one in got] == [one.key for one in new]
    assert [i for i, one in enumerate(got) if not one.created] == [3]
    assert got[3].metadata == {"seed": "0"}
    assert store.read("m/000000069.png") == b"69"
    assert store.create_many([]) == []


def test_ranges(store: BlobStore) -> None:
    put(store, "r", b"0123456789")
    assert store.read("r") == b"0123456789"
    assert store.read("r", offset=3, length=4) == b"3456"
    assert store.read("r", offset=8) == b"89"
    assert store.read("r", offset=8, length=50) == b"89"
    assert store.read("r", offset=50) == b""
    assert store.read("r", offset=2, length=0) == b""


def test_streams_come_in_pieces(store: BlobStore) -> None:
    data = bytes(range(256)) * 4000
    put(store, "big", data)
    pieces = list(store.stream("big"))
    assert b"".join(pieces) == data
    assert len(pieces) > 1
    assert b"".join(store.stream("big", offset=300_000, length=500_000)) == data[300_000:800_000]


def test_empty_object(store: BlobStore) -> None:
    assert put(store, "empty", b"").size == 0
    assert store.read("empty") == b""
    there = store.head("empty")
    assert there is not None
    assert there.sha256 == hashlib.sha256(b"").hexdigest()


def test_absent_objects(store: BlobStore) -> None:
    assert store.head("no/such") is None
    with pytest.raises(errors.NotFound):
        store.read("no/such")
    with pytest.raises(errors.NotFound):
        store.stream("no/such")
    store.delete(["no/such"])


def test_list_by_prefix(store: BlobStore) -> None:
    store.create_many([New(key, b"xy", PNG) for key in ("a/1", "a/2", "ab", "b/a/1")])
    assert sorted(one.key for one in store.list("a/")) == ["a/1", "a/2"]
    assert sorted(one.key for one in store.list("a")) == ["a/1", "a/2", "ab"]
    assert sorted(one.key for one in store.list("")) == ["a/1", "a/2", "ab", "b/a/1"]
    assert list(store.list("c/")) == []
    assert [one.size for one in store.list("a/")] == [2, 2]


def test_deleted_objects_are_gone_and_may_be_created_anew(store: BlobStore) -> None:
    put(store, "d/1.png", b"one", seed="1")
    put(store, "d/2.png", b"two")
    store.delete(["d/1.png", "d/none.png"])
    assert store.head("d/1.png") is None
    assert [one.key for one in store.list("d/")] == ["d/2.png"]
    anew = put(store, "d/1.png", b"other", seed="9")
    assert (anew.created, anew.metadata) == (True, {"seed": "9"})
    store.delete(one.key for one in list(store.list("d/")))
    assert list(store.list("")) == []


@pytest.mark.parametrize(
    "key",
    ["", "/abs", "../up", "a/../b", "a//b", "a/", ".hidden", "a/.b", "a\\b", "a\n", "x" * 901],
)
def test_keys_that_could_escape_are_refused(store: BlobStore, key: str) -> None:
    with pytest.raises(errors.BadRequest):
        put(store, key, b"")
    with pytest.raises(errors.BadRequest):
        store.read(key)
    with pytest.raises(errors.BadRequest):
        store.head(key)
    with pytest.raises(errors.BadRequest):
        store.delete([key])


def test_probe_passes_and_leaves_nothing(store: BlobStore) -> None:
    store.probe()
    assert list(store.list("")) == []


def test_links_open_without_credentials(s3: Bucket) -> None:
    store = s3_store(s3.fresh())
    put(store, "p/1.png", b"picture")
    link = store.url("p/1.png", expires=60, filename='my "cat".png')
    assert link is not None
    assert "X-Amz-Signature" in link
    with urllib.request.urlopen(link) as answer:
        assert answer.read() == b"picture"
        assert answer.headers["Content-Type"] == PNG
        assert answer.headers["Content-Disposition"] == "attachment; filename=\"my 'cat'.png\""
    store.close()


def test_links_use_the_public_endpoint(s3: Bucket) -> None:
    store = S3Blobs(
        s3.bucket, endpoint_url=s3.endpoint_url, public_endpoint_url="https://pictures.example"
    )
    link = store.url("p/1.png", expires=60)
    assert link is not None
    assert link.startswith(f"https://pictures.example/{s3.bucket}/p/1.png?")
    store.close()


def strip_condition(request: object, **_: object) -> None:
    del request.headers["If-None-Match"]  # type: ignore[attr-defined]


def test_a_store_that_ignores_if_none_match_gets_keys_by_content(s3: Bucket) -> None:
    store = s3_store(s3.fresh())
    store._client().meta.events.register("before-sign.s3.PutObject", strip_condition)
    told = [(b"first", {"seed": "1"}), (b"second", {"seed": "2"}), (b"first", {"seed": "1"})]
    first, second, again = (
        store.create_many([New("a.b/x.png", data, PNG, metadata)])[0] for data, metadata in told
    )
    assert first.key == f"a.b/x-{hashlib.sha256(b'first').hexdigest()[:12]}.png"
    assert second.key != first.key
    assert (first.created, second.created, again.created) == (True, True, False)
    assert again.metadata == {"seed": "1"}
    assert store.read(first.key) == b"first"
    store.close()


def test_what_nobody_else_creates_has_its_own_key_in_every_store(s3: Bucket) -> None:
    store = s3_store(s3.fresh())
    store._client().meta.events.register("before-sign.s3.PutObject", strip_condition)
    made = put(store, "sources/x.png", b"first")
    again = put(store, "sources/x.png", b"first")
    file = store.create_from("files/y", [b"li", b"ne"], content_type="text/plain")
    assert [one.key for one in (made, again, file)] == ["sources/x.png"] * 2 + ["files/y"]
    assert (made.created, again.created) == (True, False)
    assert (store.read("sources/x.png"), store.read("files/y")) == (b"first", b"line")
    store.close()


def test_an_answer_that_never_came_is_settled_by_asking(s3: Bucket) -> None:
    """The object arrives, the answer does not: the creation is still known to have held."""
    from botocore.exceptions import ReadTimeoutError

    store = s3_store(s3.fresh())
    store.probe()
    client, real = store._client(), store._client().put_object

    def lost_answer(**request: object) -> None:
        real(**request)  # type: ignore[arg-type]
        raise ReadTimeoutError(endpoint_url="x")

    client.put_object = lost_answer  # type: ignore[method-assign, assignment]
    there = put(store, "a.png", b"mine", seed="1")
    assert (there.sha256, there.metadata) == (hashlib.sha256(b"mine").hexdigest(), {"seed": "1"})

    def lost_request(**request: object) -> None:
        raise ReadTimeoutError(endpoint_url="x")

    client.put_object = lost_request  # type: ignore[method-assign, assignment]
    with pytest.raises(errors.StorageDown, match="no answer"):
        put(store, "b.png", b"mine")
    assert store.head("b.png") is None
    store.close()


def fault(store: BlobStore) -> str:
    with pytest.raises(errors.StorageDown) as raised:
        store.probe()
    store.close()
    assert "\n" not in raised.value.message
    return raised.value.message


def test_missing_bucket_is_named(s3: Bucket) -> None:
    said = fault(S3Blobs("not-there", prefix="p", endpoint_url=s3.endpoint_url))
    assert "bucket not-there is not at" in said
    assert "create it" in said
    assert "PROMPTMILL_STORAGE_URL" in said


@pytest.mark.parametrize("who", ["reader", "stranger"])
def test_forbidden_bucket_is_named(s3: Bucket, monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"promptmill-{who}")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "promptmill-reader-secret")
    said = fault(s3_store(s3))
    assert f"forbids access to bucket {s3.bucket}" in said
    assert "AWS_ACCESS_KEY_ID" in said


def test_missing_credentials_are_named(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    assert "set AWS_ACCESS_KEY_ID" in fault(s3_store(s3))


def test_unreachable_endpoint_is_named() -> None:
    said = fault(S3Blobs("b", endpoint_url="http://127.0.0.1:1"))
    assert "PROMPTMILL_S3_ENDPOINT_URL" in said


def test_memory_can_be_down() -> None:
    store = MemoryBlobs()
    store.down = True
    with pytest.raises(errors.StorageDown, match="PROMPTMILL_STORAGE_URL"):
        store.head("a")


def test_open_store(tmp_path: Path, s3: Bucket) -> None:
    folder = open_store(Settings(data_dir=tmp_path))
    assert isinstance(folder, DirBlobs)
    assert folder.root == tmp_path / "objects"
    spaced = open_store(Settings(storage_url="file:///with%20space/x"))
    assert isinstance(spaced, DirBlobs)
    assert spaced.root == Path("/with space/x")
    remote = open_store(Settings(storage_url="s3://b/some/prefix/", s3_endpoint_url="http://h:1"))
    assert isinstance(remote, S3Blobs)
    assert (remote.bucket, remote.prefix) == ("b", "some/prefix/")
    for url in ("s3:///x", "file://host/x", "file:relative", "file:///"):
        with pytest.raises(errors.SettingInvalid, match="PROMPTMILL_STORAGE_URL"):
            open_store(Settings(storage_url=url))
    with pytest.raises(errors.SettingInvalid, match="PROMPTMILL_S3_ENDPOINT_URL"):
        S3Blobs("b", endpoint_url="nonsense").head("a")
    for made in (folder, spaced, remote):
        made.close()


def test_an_object_made_from_pieces(store: BlobStore) -> None:
    for count in (0, 1, 3, 20):  # a part of S3's multipart upload has 8 MiB
        pieces = [bytes([number]) * 1_000_000 for number in range(count)]
        made = store.create_from(f"files/{count}", iter(pieces), content_type="text/plain")
        data = b"".join(pieces)
        assert (made.size, made.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert store.read(f"files/{count}") == data


def test_pieces_that_break_off_leave_nothing(store: BlobStore) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(20):
            yield bytes(1_000_000)
        raise errors.BadRequest("the client went away")

    with pytest.raises(errors.BadRequest, match="went away"):
        store.create_from("files/broken", pieces(), content_type="text/plain")
    assert store.head("files/broken") is None
    assert list(store.list("files/")) == []
