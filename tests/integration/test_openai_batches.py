"""The official OpenAI client, unmodified, against the batches of a farm."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types import Batch

from api.openai import desk
from promptmill import errors
from promptmill.store import batch_claims, control, deletion, tenants
from promptmill.store import batches as stored_batches
from promptmill.store import jobs as stored_jobs
from promptmill.store import submissions as stored_submissions
from tests.integration.api_farm import ApiFarm
from tests.integration.receiver import receiving
from tests.servers import wait_until
from worker.control.outbox import Outbox

pytestmark = pytest.mark.servers

ENDPOINT = "/v1/images/generations"
SECRET = "whsec_" + "c2VjcmV0" * 4


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[ApiFarm]:
    options = {"auth": "keys", "webhook_networks": "any", "webhook_secret": SECRET}
    with ApiFarm(tmp_path_factory.mktemp("farm"), valkey_url, **options) as served:
        yield served


def client_of(farm: ApiFarm, tenant: str) -> openai.OpenAI:
    _, secret = tenants.create_key(farm.db, tenant)
    return openai.OpenAI(base_url=f"{farm.url}/v1", api_key=secret, max_retries=0)


@pytest.fixture
def client(farm: ApiFarm, request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    with client_of(farm, f"t-{request.node.name}"[:60]) as made:
        yield made


def request(custom_id: Any, prompt: Any = "a heart", **body: Any) -> dict[str, Any]:
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": ENDPOINT,
        "body": {"prompt": prompt, **body},
    }


def upload(client: openai.OpenAI, lines: Iterable[dict[str, Any] | bytes]) -> str:
    data = b"".join(
        line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines
    )
    return client.files.create(file=("in.jsonl", data), purpose="batch").id


def create(
    client: openai.OpenAI, lines: Iterable[dict[str, Any] | bytes], window: str = "24h", **ours: Any
) -> Batch:
    return client.batches.create(
        input_file_id=upload(client, lines),
        endpoint=ENDPOINT,
        completion_window=window,  # type: ignore[arg-type]
        extra_body=ours,
    )


def owner(farm: ApiFarm, batch: Batch) -> int:
    """The tenant's number."""
    found = farm.db.read(
        lambda conn: conn.exec_driver_sql(
            f"SELECT tenant_id FROM batches WHERE public_id = '{batch.id}'"
        ).scalar()
    )
    return int(found or 0)


def until(client: openai.OpenAI, batch: Batch, *statuses: str) -> Batch:
    wait_until(
        lambda: client.batches.retrieve(batch.id).status in statuses,
        seconds=30,
        what=f"the batch is {statuses}",
    )
    return client.batches.retrieve(batch.id)


def read(client: openai.OpenAI, file_id: str | None) -> dict[str, dict[str, Any]]:
    """The lines of a file by custom id."""
    assert file_id is not None
    text = client.files.content(file_id).text
    found = [json.loads(line) for line in text.splitlines()]
    assert all(set(line) == {"id", "custom_id", "response", "error"} for line in found)
    assert len({line["id"] for line in found}) == len(found)
    return {line["custom_id"]: line for line in found}


def test_a_line_that_names_no_model_means_the_farms_own_checkpoint(
    tmp_path: Path, valkey_url: str
) -> None:
    model = f"org/squares-{tmp_path.name}"
    with ApiFarm(tmp_path, valkey_url, auth="keys", model=f"hf:{model}@main") as farm:
        client = client_of(farm, "t")
        made = create(client, [request("one")])
        assert until(client, made, "in_progress", "failed").model == model


def test_a_batch_from_upload_to_results(farm: ApiFarm, client: openai.OpenAI) -> None:
    made = create(
        client,
        [
            request("by-link"),
            b"\n",
            request("inline", "a star", response_format="b64_json", seed=7, size="32x32"),
            request("three", "moons", n=3),
            request("ruined", "fail this one"),
        ],
    )
    assert made.status == "validating" and made.errors is None
    assert made.request_counts is not None and made.request_counts.total == 0
    running = until(client, made, "in_progress")
    assert running.model == farm.model and running.output_file_id is None
    farm.worker.drain()
    control.finish_ready(farm.db)
    done = until(client, made, "completed")
    assert done.request_counts is not None
    assert done.request_counts.model_dump() == {"total": 4, "completed": 3, "failed": 1}
    assert done.completed_at and done.finalizing_at and done.in_progress_at
    assert done.failed_at is done.expired_at is done.cancelled_at is None
    output, wrong = read(client, done.output_file_id), read(client, done.error_file_id)
    assert set(output) == {"by-link", "inline", "three"} and set(wrong) == {"ruined"}
    for line in output.values():
        assert line["error"] is None and line["id"].startswith("batch_req_")
        assert line["response"]["status_code"] == 200
        assert line["response"]["request_id"].startswith("req_")
        images = line["response"]["body"]["data"]
        for image in images:
            if "url" in image:
                data = httpx.get(image["url"], follow_redirects=True).content
            else:
                data = base64.b64decode(image["b64_json"])
            assert hashlib.sha256(data).hexdigest() == image["sha256"]
    assert len(output["three"]["response"]["body"]["data"]) == 3
    assert output["inline"]["response"]["body"]["data"][0]["seed"] == 7
    assert output["inline"]["response"]["body"]["size"] == "32x32"
    ruined = wrong["ruined"]
    assert ruined["error"] is None and ruined["response"]["status_code"] == 500
    told = ruined["response"]["body"]["error"]
    assert set(told) == {"message", "type", "param", "code"} and told["code"] == "render_failed"
    for id in (done.output_file_id, done.error_file_id):
        file = client.files.retrieve(id or "")
        assert file.purpose == "batch_output" and file.status == "processed"
        assert file.bytes == len(client.files.content(file.id).read())
        assert file.expires_at == file.created_at + 30 * 86_400
    assert len(list(client.files.list(purpose="batch_output"))) == 2


def test_a_desk_that_slept_leaves_the_batch_to_who_took_it_over(
    farm: ApiFarm, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, slept = stored_submissions.finish, []

    def overtaken(*given: Any, **more: Any) -> Any:
        if not slept:
            slept.append(True)
            raise errors.TakenOver
        return real(*given, **more)

    monkeypatch.setattr(stored_submissions, "finish", overtaken)
    monkeypatch.setattr(desk, "AGAIN", 0.1)
    made = create(client, [request("one")])
    assert until(client, made, "in_progress", "failed").status == "in_progress"
    assert slept
    farm.worker.drain()


def test_output_is_there_while_it_runs(farm: ApiFarm, client: openai.OpenAI) -> None:
    made = create(client, [request(f"r{n}", f"number {n}") for n in range(10)])
    until(client, made, "in_progress")
    assert farm.worker.batch(4) == 4
    running = client.batches.retrieve(made.id)
    assert running.status == "in_progress"
    assert running.request_counts is not None and running.request_counts.completed == 4
    assert set(read(client, running.output_file_id)) == {f"r{n}" for n in range(4)}
    assert running.error_file_id is None
    assert client.files.retrieve(running.output_file_id or "").status == "uploaded"
    farm.worker.drain()
    control.finish_ready(farm.db)
    done = until(client, made, "completed")
    assert len(read(client, done.output_file_id)) == 10 and done.error_file_id is None


def test_what_was_done_stays_when_it_is_cancelled(farm: ApiFarm, client: openai.OpenAI) -> None:
    made = create(client, [request(f"r{n}", f"number {n}") for n in range(6)])
    until(client, made, "in_progress")
    farm.worker.batch(2)
    stopping = client.batches.cancel(made.id)
    assert stopping.status == "cancelling" and stopping.cancelling_at
    [job] = [j for j in control.open_jobs(farm.db, farm.model) if j.name == made.id]
    control.finish_cancelling(farm.db, job.id)
    gone = until(client, made, "cancelled")
    assert gone.cancelled_at and gone.request_counts is not None
    assert gone.request_counts.model_dump() == {"total": 6, "completed": 2, "failed": 0}
    assert set(read(client, gone.output_file_id)) == {"r0", "r1"}
    never = read(client, gone.error_file_id)
    assert set(never) == {f"r{n}" for n in range(2, 6)}
    assert all(line["response"] is None for line in never.values())
    assert {line["error"]["code"] for line in never.values()} == {"batch_cancelled"}
    assert client.batches.cancel(made.id) == gone, "again changes nothing"


def test_what_was_done_stays_when_its_window_closes(
    farm: ApiFarm, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = create(client, [request(f"r{n}", f"number {n}") for n in range(3)], window="30m")
    assert made.expires_at == pytest.approx(made.created_at + 1800, abs=1)
    until(client, made, "in_progress")
    farm.worker.batch(1)
    now = farm.db.now
    monkeypatch.setattr(type(farm.db), "now", lambda _: now() + 1801)
    control.expire(farm.db)
    monkeypatch.undo()
    over = until(client, made, "expired")
    assert over.expired_at and set(read(client, over.output_file_id)) == {"r0"}
    never = read(client, over.error_file_id)
    assert set(never) == {"r1", "r2"}
    assert never["r1"]["response"] is None
    assert never["r1"]["error"] == {
        "code": "batch_expired",
        "message": "This request could not be executed before the completion window expired.",
    }


def test_a_retry_of_the_job_opens_the_batch_again(farm: ApiFarm, client: openai.OpenAI) -> None:
    made = create(client, [request("good"), request("bad", "fail this")])
    until(client, made, "in_progress")
    farm.worker.drain()
    control.finish_ready(farm.db)
    done = until(client, made, "completed")
    job = stored_jobs.page(farm.db, owner(farm, made), after=None, limit=1)[0][0]
    assert job.name == made.id
    stored_jobs.retry(farm.db, None, job.public_id, codes=None)
    again = client.batches.retrieve(made.id)
    assert again.status == "in_progress" and again.completed_at is None
    assert set(read(client, again.output_file_id)) == {"good"}
    stored_jobs.cancel(farm.db, None, job.public_id)
    control.finish_cancelling(farm.db, job.id)
    over = until(client, made, "cancelled")
    assert set(read(client, over.error_file_id)) == {"bad"} != done.error_file_id


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([], [("empty_file", None, None)]),
        ([b"\n \n"], [("empty_batch", None, None)]),
        ([request("a"), b'{"custom_id": \n', b"[]\n"],
         [("invalid_json_line", 2, None), ("invalid_json_line", 3, None)]),
        ([request("a"), request("a")], [("duplicate_custom_id", 2, "custom_id")]),
        ([request("a", model="none")], [("model_not_found", 1, None)]),
        ([request("a"), {**request("b"), "url": "/v1/chat/completions"}],
         [("url_mismatch", 2, "url")]),
        ([{**request("a"), "method": "GET"}], [("invalid_request", 1, "method")]),
        ([{**request("a"), "extra": 1}], [("invalid_request", 1, "extra")]),
        ([{**request("a"), "body": "x"}], [("invalid_request", 1, "body")]),
        ([request(7)], [("invalid_request", 1, "custom_id")]),
        ([request("a", 5)], [("invalid_request", 1, "body.prompt")]),
        ([request("a", "  ")], [("invalid_request", 1, "body.prompt")]),
        ([request("a", "nul\0")], [("invalid_request", 1, None)]),
        ([request("a"), request("b", size="31x7"), request("c"), request("d", stream=True)],
         [("invalid_request", 2, "body.size"), ("invalid_request", 4, "body.stream")]),
        ([request("a"), request("b", output_format="webp")],
         [("invalid_request", 2, "body.output_format")]),
        ([request("a"), b'{"custom_id": "' + b"x" * 1_000_001 + b'"}\n'],
         [("invalid_json_line", 2, None)]),
    ],
)  # fmt: skip
def test_wrong_lines_are_told_by_number(
    client: openai.OpenAI, lines: list[Any], found: list[tuple[str, int | None, str | None]]
) -> None:
    failed = until(client, create(client, lines), "failed")
    assert failed.errors is not None and failed.errors.data is not None
    told = failed.errors.data
    assert [(one.code, one.line) for one in told] == [(code, line) for code, line, _ in found]
    for one, (_, _, param) in zip(told, found, strict=True):
        assert one.message and (param is None or one.param == param)
    assert failed.failed_at and failed.output_file_id is failed.error_file_id is None


def test_a_second_model_is_a_mismatch(farm: ApiFarm, client: openai.OpenAI) -> None:
    lines = [request("a", model=farm.model), request("b", model="other"), request("c")]
    failed = until(client, create(client, lines), "failed")
    assert failed.errors is not None and failed.errors.data is not None
    [told] = failed.errors.data
    assert (told.code, told.line, told.param) == ("model_mismatch", 2, "body.model")


def test_a_request_sent_again_makes_no_second_batch(client: openai.OpenAI) -> None:
    file = upload(client, [request("a")])
    given: Any = {"input_file_id": file, "endpoint": ENDPOINT, "completion_window": "24h"}
    first = client.batches.create(**given, metadata={"run": "1"})
    assert client.batches.create(**given, metadata={"run": "1"}).id == first.id
    assert client.batches.create(**given, metadata={"run": "2"}).id != first.id
    keyed = {"extra_headers": {"Idempotency-Key": "k"}}
    third = client.batches.create(**given, **keyed)
    assert third.id != first.id and client.batches.create(**given, **keyed).id == third.id
    with pytest.raises(openai.ConflictError) as caught:
        client.batches.create(**given, metadata={"run": "3"}, **keyed)
    assert caught.value.code == "idempotency_mismatch"
    found = [batch.id for batch in client.batches.list(limit=2)]
    assert len(found) == 3 and found[-1] == first.id and found[0] == third.id
    client.batches.cancel(first.id)
    assert client.batches.create(**given, metadata={"run": "1"}).id != first.id


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"completion_window": "soon"}, "completion_window"),
        ({"completion_window": "0h"}, "completion_window"),
        ({"endpoint": "/v1/chat/completions"}, "endpoint"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}},
         "output_expires_after.seconds"),
        ({"extra_body": {"priority": "urgent"}}, "priority"),
        ({"extra_body": {"webhook": "ftp://x"}}, "webhook"),
        ({"extra_body": {"colour": "red"}}, "colour"),
        ({"input_file_id": "file_\0"}, "input_file_id"),
    ],
)  # fmt: skip
def test_wrong_parameters_are_refused_by_name(
    client: openai.OpenAI, given: dict[str, Any], param: str
) -> None:
    usual = {"endpoint": ENDPOINT, "completion_window": "24h"}
    usual["input_file_id"] = upload(client, [request("a")])
    with pytest.raises(openai.BadRequestError) as caught:
        client.batches.create(**{**usual, **given})
    assert caught.value.param == param


def test_files_of_others_and_for_other_ends_make_no_batch(
    farm: ApiFarm, client: openai.OpenAI
) -> None:
    given: Any = {"endpoint": ENDPOINT, "completion_window": "24h"}
    note = client.files.create(file=("a.txt", b"x"), purpose="user_data")
    with pytest.raises(openai.BadRequestError, match="user_data"):
        client.batches.create(**given, input_file_id=note.id)
    made = create(client, [request("a")])
    with client_of(farm, "another") as other:
        assert list(other.batches.list()) == []
        with pytest.raises(openai.NotFoundError) as caught:
            other.batches.create(**given, input_file_id=made.input_file_id)
        assert caught.value.param == "input_file_id"
        for call in (other.batches.retrieve, other.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                call(made.id)


def test_between_its_last_image_and_its_end_it_is_finalizing(
    farm: ApiFarm, client: openai.OpenAI
) -> None:
    made = create(client, [request("a"), request("b")])
    until(client, made, "in_progress")
    batch = stored_batches.get(farm.db, owner(farm, made), made.id)
    batch_claims.renew(farm.db, batch.id, seconds=60.0)  # no desk takes it up meanwhile
    farm.worker.drain()
    for step in (lambda: None, lambda: control.finish_ready(farm.db)):
        step()
        now = client.batches.retrieve(made.id)
        assert now.status == "finalizing" and now.completed_at is None
        assert set(read(client, now.output_file_id)) == {"a", "b"}
    batch_claims.release(farm.db, batch.id)
    assert until(client, made, "completed").finalizing_at


def test_a_deleted_job_takes_its_results_along_and_not_the_input(
    farm: ApiFarm, client: openai.OpenAI
) -> None:
    made = create(client, [request("a")], metadata={"run": "1"})
    until(client, made, "in_progress")
    farm.worker.drain()
    control.finish_ready(farm.db)
    done = until(client, made, "completed")
    job_id: str = done.job_id  # type: ignore[attr-defined]
    deletion.delete(farm.db, None, job_id)
    husk = client.batches.retrieve(made.id)
    assert husk.status == "completed" and husk.request_counts == done.request_counts
    assert husk.output_file_id is husk.error_file_id is husk.metadata is None
    with pytest.raises(openai.NotFoundError):
        client.files.content(done.output_file_id or "")
    assert [file.id for file in client.files.list()] == [made.input_file_id]
    assert client.files.content(made.input_file_id).read()


def test_the_client_verifies_what_a_batch_tells(
    farm: ApiFarm, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as receiver:
        hook = {"webhook": receiver.url}
        completed = create(client, [request("a", "kept")], **hook)
        failed = create(client, [b"{\n"], **hook)
        until(client, failed, "failed")
        until(client, completed, "in_progress")
        farm.worker.drain()
        control.finish_ready(farm.db)
        until(client, completed, "completed")
        cancelled = create(client, [request("a", "left")], **hook)
        until(client, cancelled, "in_progress")
        client.batches.cancel(cancelled.id)
        for job in control.open_jobs(farm.db, farm.model):
            control.finish_cancelling(farm.db, job.id)
        until(client, cancelled, "cancelled")
        expired = create(client, [request("a", "late")], window="30m", **hook)
        until(client, expired, "in_progress")
        now = farm.db.now
        monkeypatch.setattr(type(farm.db), "now", lambda _: now() + 1801)
        control.expire(farm.db)
        monkeypatch.undo()
        until(client, expired, "expired")
        outbox = Outbox(farm.db, farm.settings)
        while outbox.step():
            pass
        outbox.close()
    verifier = client.with_options(webhook_secret=SECRET)
    events = [verifier.webhooks.unwrap(body, headers) for headers, body in receiver.got]
    assert {(event.type, event.data.id) for event in events} == {
        ("batch.failed", failed.id),
        ("batch.completed", completed.id),
        ("batch.cancelled", cancelled.id),
        ("batch.expired", expired.id),
    }
