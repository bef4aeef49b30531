"""The official OpenAI client, unmodified, against the files of a farm."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from promptmill import keys
from promptmill.store import files as stored
from promptmill.store import tenants
from tests.integration.api_farm import ApiFarm
from tests.servers import Bucket
from worker.control.sweep import Sweep

pytestmark = pytest.mark.servers


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


def client_of(farm: ApiFarm, tenant: str) -> openai.OpenAI:
    _, secret = tenants.create_key(farm.db, tenant)
    return openai.OpenAI(base_url=f"{farm.url}/v1", api_key=secret, max_retries=0)


@pytest.fixture
def client(farm: ApiFarm, request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    with client_of(farm, f"t-{request.node.name}"[:60]) as made:
        yield made


def test_a_file_there_and_back(client: openai.OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "requests é.jsonl"
    data = b"".join(b'{"line": %d}\n' % number for number in range(200_000))
    path.write_bytes(data)
    made = client.files.create(
        file=path, purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert (made.bytes, made.filename, made.purpose) == (len(data), path.name, "batch")
    assert made.object == "file" and made.status == "processed"
    assert made.expires_at == made.created_at + 3600
    assert client.files.retrieve(made.id) == made
    assert client.files.content(made.id).read() == data


def test_content_comes_from_the_store_where_that_can_be(
    farm: ApiFarm, client: openai.OpenAI
) -> None:
    made = client.files.create(file=("a.txt", b"hello"), purpose="user_data")
    assert made.expires_at is None
    answer = httpx.get(
        f"{farm.url}/v1/files/{made.id}/content",
        headers={"authorization": f"Bearer {client.api_key}"},
    )
    if farm.settings.storage_url:
        assert answer.status_code == 302
        where = httpx.URL(answer.headers["location"])
        assert where.port != httpx.URL(farm.url).port, "the key is not sent there"
        assert httpx.get(where).content == b"hello"
    else:
        assert answer.status_code == 200 and answer.content == b"hello"
        assert answer.headers["content-length"] == "5"


def test_lists_in_pages_by_purpose_and_order(client: openai.OpenAI) -> None:
    made = [
        client.files.create(
            file=(f"{n}.txt", b"x" * n), purpose="batch" if n % 2 else "user_data"
        ).id
        for n in range(5)
    ]
    assert [file.id for file in client.files.list()] == made[::-1]
    assert [file.id for file in client.files.list(order="asc", limit=2)] == made
    assert [file.id for file in client.files.list(purpose="batch")] == [made[3], made[1]]
    page = client.files.list(limit=2, after=made[3])
    assert [file.id for file in page.data] == [made[2], made[1]] and page.has_more
    gone = client.files.delete(made[2])
    assert gone.deleted and gone.id == made[2]
    assert [file.id for file in client.files.list()] == [made[n] for n in (4, 3, 1, 0)]
    assert [file.id for file in client.files.list(after=made[2])] == [made[1], made[0]]


def test_another_tenant_sees_nothing(farm: ApiFarm, client: openai.OpenAI) -> None:
    made = client.files.create(file=("a.txt", b"mine"), purpose="batch")
    with client_of(farm, "another") as other:
        assert list(other.files.list()) == []
        for call in (other.files.retrieve, other.files.delete, other.files.content):
            with pytest.raises(openai.NotFoundError):
                call(made.id)
        with pytest.raises(openai.BadRequestError):
            other.files.list(after=made.id)
    assert client.files.content(made.id).read() == b"mine"


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"purpose": "poetry"}, "purpose"),
        ({"purpose": "batch", "expires_after": {"anchor": "created_at", "seconds": 5}},
         "expires_after[seconds]"),
        ({"purpose": "batch", "expires_after": {"anchor": "now", "seconds": 3600}},
         "expires_after[anchor]"),
        ({"purpose": "batch", "expires_after": {"anchor": "created_at"}}, "expires_after"),
        ({"purpose": "batch", "extra_body": {"colour": "red"}}, "colour"),
    ],
)  # fmt: skip
def test_wrong_fields_are_refused_by_name(
    client: openai.OpenAI, given: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.files.create(file=("a.txt", b"x"), **given)
    assert caught.value.param == param and caught.value.request_id
    assert list(client.files.list()) == []


def test_fields_may_follow_the_file(farm: ApiFarm, client: openai.OpenAI) -> None:
    """As `curl -F file=@… -F purpose=batch` sends them."""
    headers = {"authorization": f"Bearer {client.api_key}"}
    parts = [("file", ("a.txt", b"abc")), ("purpose", (None, b"batch"))]
    answer = httpx.post(f"{farm.url}/v1/files", files=parts, headers=headers)
    assert answer.json()["bytes"] == 3
    for wrong, param in (
        ([("purpose", (None, b"batch"))], "file"),
        ([("file", ("a.txt", b"abc"))], "purpose"),
        ([("file", ("a.txt", b"abc"))] * 2, "file"),
    ):
        answer = httpx.post(f"{farm.url}/v1/files", files=wrong, headers=headers)  # type: ignore[arg-type]
        assert answer.status_code == 400 and answer.json()["error"]["param"] == param
    headers["content-type"] = "multipart/form-data; boundary=x"
    cut = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nabc'
    answer = httpx.post(f"{farm.url}/v1/files", content=cut, headers=headers)
    assert answer.status_code == 400 and "ends early" in answer.json()["error"]["message"]
    headers["content-type"] = "application/json"
    assert httpx.post(f"{farm.url}/v1/files", content=b"{}", headers=headers).status_code == 415


def test_what_nobody_needs_any_more_is_swept(
    farm: ApiFarm, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = Sweep(farm.db, farm.blobs, farm.settings, stop=threading.Event())
    kept, deleted, old = (
        client.files.create(file=("a.txt", b"x"), purpose=purpose).id
        for purpose in ("user_data", "batch", "batch")
    )
    with pytest.raises(openai.BadRequestError):
        client.files.create(file=("a.txt", io.BytesIO(b"refused")), purpose="none")  # type: ignore[arg-type]
    unfinished = stored.begin(farm.db, farm.tenant.id)
    client.files.delete(deleted)
    sweep.files()
    assert farm.blobs.head(keys.file(deleted)) is None
    assert farm.blobs.head(keys.file(old)) is not None
    now = farm.db.now()
    monkeypatch.setattr(type(farm.db), "now", lambda _: now + 31 * 86_400)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(old)
    assert [file.id for file in client.files.list()] == [kept]
    assert sweep.files() >= 2
    assert sweep.files() == 0
    assert farm.blobs.head(keys.file(old)) is None
    assert farm.blobs.head(keys.file(kept)) is not None
    left = {object.key for object in farm.blobs.list("files/")}
    assert keys.file(unfinished.public_id) not in left
