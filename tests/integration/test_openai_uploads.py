"""The official OpenAI client, unmodified, against files that come in parts."""

from __future__ import annotations

import hashlib
import io
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from api.openai import uploads as limits
from promptmill import keys
from promptmill.store import tenants
from promptmill.store import uploads as stored
from promptmill.store.tenants import Scope
from tests.integration.api_farm import ApiFarm
from tests.servers import Bucket
from worker.control.sweep import Sweep

pytestmark = pytest.mark.servers

HOUR = 3600


@pytest.fixture(scope="module", params=["folder", "s3"])
def farm(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, valkey_url: str
) -> Iterator[ApiFarm]:
    options: dict[str, Any] = {}
    if request.param == "s3":
        bucket: Bucket = request.getfixturevalue("s3").fresh()
        options = {"storage_url": bucket.storage_url, "s3_endpoint_url": bucket.endpoint_url}
    with ApiFarm(tmp_path_factory.mktemp("farm"), valkey_url, auth="keys", **options) as served:
        yield served


def client_of(farm: ApiFarm, tenant: str, *scopes: Scope) -> openai.OpenAI:
    _, secret = tenants.create_key(farm.db, tenant, scopes=scopes or tuple(Scope))
    return openai.OpenAI(base_url=f"{farm.url}/v1", api_key=secret, max_retries=0)


@pytest.fixture
def client(farm: ApiFarm, request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    with client_of(farm, f"t-{request.node.name}"[:60]) as made:
        yield made


@pytest.fixture
def sweep(farm: ApiFarm) -> Sweep:
    return Sweep(farm.db, farm.blobs, farm.settings, stop=threading.Event())


def announce(client: openai.OpenAI, size: int, **more: Any) -> openai.types.Upload:
    given: dict[str, Any] = {"filename": "a.txt", "mime_type": "text/plain", **more}
    return client.uploads.create(bytes=size, purpose=given.pop("purpose", "user_data"), **given)


def part(client: openai.OpenAI, upload: str, data: bytes) -> str:
    return client.uploads.parts.create(upload, data=data).id


def left(farm: ApiFarm, upload: str) -> list[str]:
    return [stored.key for stored in farm.blobs.list(keys.upload_prefix(upload))]


def test_a_file_in_chunks_by_the_clients_own_loop(
    farm: ApiFarm, client: openai.OpenAI, sweep: Sweep, tmp_path: Path
) -> None:
    path = tmp_path / "requests é.jsonl"
    data = random.Random(1).randbytes(20_000_001)
    path.write_bytes(data)
    done = client.uploads.upload_file_chunked(
        file=path, mime_type="text/jsonl", purpose="batch", part_size=6_000_000,
        md5=hashlib.md5(data).hexdigest(),
    )  # fmt: skip
    assert (done.status, done.object, done.bytes) == ("completed", "upload", len(data))
    assert done.expires_at == done.created_at + HOUR
    file = done.file
    assert file is not None and (file.bytes, file.filename) == (len(data), path.name)
    assert file.expires_at == file.created_at + 30 * 24 * HOUR, "as every file for a batch"
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == data
    assert len(left(farm, done.id)) == 4
    assert sweep.parts() >= 1
    assert left(farm, done.id) == []
    assert client.files.content(file.id).read() == data


def test_from_memory_and_with_a_time_to_live(client: openai.OpenAI) -> None:
    done = client.uploads.upload_file_chunked(
        file=b"0123456789", filename="ten.txt", bytes=10, mime_type="text/plain",
        purpose="user_data", part_size=4,
    )  # fmt: skip
    assert done.file is not None and client.files.content(done.file.id).read() == b"0123456789"
    short = announce(client, 1, expires_after={"anchor": "created_at", "seconds": 7200})
    made = client.uploads.complete(short.id, part_ids=[part(client, short.id, b"x")]).file
    assert made is not None and made.expires_at == made.created_at + 7200


def test_parts_come_side_by_side_and_their_order_is_the_callers(client: openai.OpenAI) -> None:
    upload = announce(client, 30)
    assert (upload.status, upload.file) == ("pending", None)
    pieces = [bytes([65 + n]) * 5 for n in range(8)]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda piece: part(client, upload.id, piece), pieces))
    wanted = [made[n] for n in (7, 2, 5, 0, 1, 3)]  # two of them are not wanted
    done = client.uploads.complete(upload.id, part_ids=wanted)
    assert done.file is not None
    assert client.files.content(done.file.id).read() == b"".join(
        pieces[n] for n in (7, 2, 5, 0, 1, 3)
    )
    again = client.uploads.complete(upload.id, part_ids=wanted)
    assert again == done, "a client that lost the answer asks again"
    assert [file.id for file in client.files.list()] == [done.file.id]
    client.files.delete(done.file.id)
    assert client.uploads.complete(upload.id, part_ids=wanted).file is None


def test_two_that_complete_at_once_make_one_file(client: openai.OpenAI) -> None:
    upload = announce(client, 3_000_000)
    ids = [part(client, upload.id, b"x" * 1_500_000) for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        found = set(
            pool.map(
                lambda _: client.uploads.complete(upload.id, part_ids=ids).file.id,  # type: ignore[union-attr]
                range(4),
            )
        )
    assert len(found) == 1
    assert [file.id for file in client.files.list()] == list(found)


def test_another_tenant_sees_nothing(farm: ApiFarm, client: openai.OpenAI) -> None:
    upload = announce(client, 4)
    mine = part(client, upload.id, b"mine")
    with client_of(farm, "another") as other:
        for call in (
            lambda: part(other, upload.id, b"more"),
            lambda: other.uploads.complete(upload.id, part_ids=[mine]),
            lambda: other.uploads.cancel(upload.id),
        ):
            with pytest.raises(openai.NotFoundError):
                call()
        own = announce(other, 4)
        with pytest.raises(openai.BadRequestError) as caught:
            other.uploads.complete(own.id, part_ids=[mine])
        assert caught.value.param == "part_ids"
    assert client.uploads.complete(upload.id, part_ids=[mine]).status == "completed"


def test_a_key_that_may_submit_may_upload(farm: ApiFarm) -> None:
    with client_of(farm, "ci", Scope.SUBMIT) as client:
        done = client.uploads.upload_file_chunked(
            file=b"abcd",
            filename="a",
            bytes=4,
            mime_type="text/plain",
            purpose="batch",
            part_size=2,
        )
        assert done.status == "completed"
    with client_of(farm, "ci", Scope.READ) as client, pytest.raises(openai.PermissionDeniedError):
        announce(client, 4)


def test_what_is_cancelled_takes_nothing_more(
    farm: ApiFarm, client: openai.OpenAI, sweep: Sweep
) -> None:
    upload = announce(client, 4)
    held = part(client, upload.id, b"1234")
    over = client.uploads.cancel(upload.id)
    assert (over.status, over.file) == ("cancelled", None)
    assert client.uploads.cancel(upload.id) == over
    for call in (
        lambda: part(client, upload.id, b"more"),
        lambda: client.uploads.complete(upload.id, part_ids=[held]),
    ):
        with pytest.raises(openai.BadRequestError, match="cancelled"):
            call()
    sweep.parts()
    assert left(farm, upload.id) == []
    done = announce(client, 1)
    client.uploads.complete(done.id, part_ids=[part(client, done.id, b"x")])
    with pytest.raises(openai.BadRequestError, match="completed"):
        client.uploads.cancel(done.id)


def test_what_does_not_fit_together_is_refused_and_can_be_mended(client: openai.OpenAI) -> None:
    upload = announce(client, 6)
    one, two = part(client, upload.id, b"abc"), part(client, upload.id, b"def")
    for ids, md5, param in (
        ([one], None, "part_ids"),
        ([one, one], None, "part_ids"),
        ([one, "part_none"], None, "part_ids"),
        ([one, two], "0" * 32, "md5"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            client.uploads.complete(upload.id, part_ids=ids, md5=md5 or openai.omit)
        assert caught.value.param == param
    assert list(client.files.list()) == []
    good = hashlib.md5(b"defabc").hexdigest()
    done = client.uploads.complete(upload.id, part_ids=[two, one], md5=good)
    assert done.file is not None and client.files.content(done.file.id).read() == b"defabc"


def test_limits(farm: ApiFarm, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    for given, param in (
        ({"size": 0}, "bytes"),
        ({"size": 5, "purpose": "poetry"}, "purpose"),
        ({"size": 5, "extra_body": {"colour": "red"}}, "colour"),
        (
            {"size": 5, "expires_after": {"anchor": "created_at", "seconds": 5}},
            "expires_after.seconds",
        ),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            announce(client, **given)  # type: ignore[arg-type]
        assert caught.value.param == param
    with pytest.raises(openai.APIStatusError) as large:
        announce(client, limits.MOST_BYTES + 1)
    assert large.value.status_code == 413
    upload = announce(client, 8)
    monkeypatch.setattr(limits, "MOST_PART", 5)
    monkeypatch.setattr(limits, "MOST_BYTES", 8)
    with pytest.raises(openai.APIStatusError) as large:
        part(client, upload.id, b"123456")
    assert large.value.status_code == 413
    first = part(client, upload.id, b"12345")
    with pytest.raises(openai.APIStatusError, match="at most 8 bytes"):
        part(client, upload.id, b"6789")
    assert len(left(farm, upload.id)) == 1, "nothing is left of what was refused"
    monkeypatch.setattr(stored, "MOST_PARTS", 2)
    ids = [first, part(client, upload.id, b"678")]
    with pytest.raises(openai.BadRequestError, match="at most 2 parts"):
        part(client, upload.id, b"")
    assert client.uploads.complete(upload.id, part_ids=ids).status == "completed"


def test_a_form_that_breaks_off_leaves_no_part(farm: ApiFarm, client: openai.OpenAI) -> None:
    upload = announce(client, 3)
    url = f"{farm.url}/v1/uploads/{upload.id}/parts"
    headers = {"authorization": f"Bearer {client.api_key}"}
    cut = b'--x\r\ncontent-disposition: form-data; name="data"; filename="a"\r\n\r\nabc'
    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert httpx.post(url, content=cut, headers=headers | kind).status_code == 400
    wrong = [("colour", (None, b"red")), ("data", ("a", b"abc"))]
    answer = httpx.post(url, files=wrong, headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "colour"
    assert left(farm, upload.id) == []
    with pytest.raises(openai.BadRequestError):
        client.uploads.complete(upload.id, part_ids=["part_x"])


def test_what_nobody_completes_ends_after_an_hour_and_is_swept_after_two(
    farm: ApiFarm, client: openai.OpenAI, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = announce(client, 4)
    held = part(client, upload.id, b"1234")
    sweep.parts()
    assert len(left(farm, upload.id)) == 1, "it may still be completed"
    late = keys.upload_part(upload.id, "part_of_a_writer_that_was_asleep")
    now = farm.db.now()
    monkeypatch.setattr(type(farm.db), "now", lambda _: now + HOUR + 1)
    with pytest.raises(openai.BadRequestError, match="expired"):
        client.uploads.complete(upload.id, part_ids=[held])
    with pytest.raises(openai.BadRequestError, match="expired"):
        part(client, upload.id, b"more")
    farm.blobs.create_from(late, [b"late"], content_type="text/plain")
    monkeypatch.setattr(type(farm.db), "now", lambda _: now + 2 * HOUR + 1)
    assert sweep.parts() >= 1
    assert left(farm, upload.id) == []
    with pytest.raises(openai.NotFoundError):
        client.uploads.cancel(upload.id)
    assert sweep.parts() == 0
    assert list(farm.blobs.list("uploads/")) == []


def test_a_file_object_is_read_to_its_end(client: openai.OpenAI) -> None:
    upload = announce(client, 100_000)
    ids = [
        client.uploads.parts.create(upload.id, data=("p", io.BytesIO(b"z" * 50_000))).id
        for _ in range(2)
    ]
    done = client.uploads.complete(upload.id, part_ids=ids)
    assert done.file is not None and client.files.content(done.file.id).read() == b"z" * 100_000
