"""The SDK against a stub of the API: what is sent, sent again, and raised."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from promptmill import errors
from promptmill.client import Client, body
from tests.unit.client_stub import Fault, StubFarm, serving


@pytest.fixture
def farm() -> Iterator[StubFarm]:
    with serving() as stub:
        yield stub


@pytest.fixture
def client(farm: StubFarm) -> Iterator[Client]:
    with Client(farm.url, "pm_secret", patience=5) as made:
        yield made


def test_client_and_cli_import_no_server_library() -> None:
    heavy = ["sqlalchemy", "celery", "kombu", "redis", "fastapi", "torch", "boto3", "numpy", "PIL"]
    code = f"import sys, promptmill.client, promptmill.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_url_and_key_come_from_the_environment(
    farm: StubFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTMILL_URL", farm.url + "/")
    monkeypatch.setenv("PROMPTMILL_API_KEY", "pm_env")
    farm.add(["a"])
    with Client() as client:
        assert client.job("job_1").counts.total == 1
    assert farm.requests[-1].headers["authorization"] == "Bearer pm_env"


def test_a_list_of_prompts_and_dictionaries_becomes_json_lines(
    farm: StubFarm, client: Client
) -> None:
    job = client.submit(["a cat", {"prompt": "a dög", "seed": 3}], size="64x64", guidance=[1, 2])
    [sent] = farm.seen("POST", "/v1/jobs")
    assert sent.rows() == [{"prompt": "a cat"}, {"prompt": "a dög", "seed": 3}]
    assert sent.query == {"size": ["64x64"], "guidance": ["1", "2"]}
    assert sent.headers["content-type"] == "application/x-ndjson"
    assert job.id == "job_1" and job.succeeded


@pytest.mark.parametrize(
    ("name", "kind", "encoding"),
    [
        ("a.jsonl", "application/x-ndjson", None),
        ("a.ndjson.gz", "application/x-ndjson", "gzip"),
        ("a.csv", "text/csv", None),
        ("a.txt", "text/plain; charset=utf-8", None),
        ("a.parquet", "application/vnd.apache.parquet", None),
        ("a.json", "application/json", None),
    ],
)
def test_the_suffix_of_a_file_says_what_it_is(
    tmp_path: Path, name: str, kind: str, encoding: str | None
) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"{}") if encoding else b"{}")
    headers = body(path).headers
    assert headers["content-type"] == kind
    assert headers.get("content-encoding") == encoding


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b'{"prompt": "x"}\n', "jsonl"),
        (b"\xef\xbb\xbfseed,prompt\r\n1,x\r\n", "csv"),
        (b"a cat, a dog\n", "txt"),
        (b"PAR1....", "parquet"),
        (gzip.compress(b"prompt,seed\nx,1\n", mtime=0), "csv"),
        (b"", "txt"),
    ],
    ids=["jsonl", "csv-with-a-mark", "txt", "parquet", "csv-packed", "empty"],
)
def test_a_stream_is_known_by_its_first_bytes(data: bytes, kind: str) -> None:
    made = body(io.BytesIO(data))
    assert made.format == kind
    assert b"".join(made.open()) == data
    assert b"".join(made.open()) == data, "a stream can be sent again"


def test_an_upload_that_breaks_is_sent_again_under_its_key(farm: StubFarm, client: Client) -> None:
    farm.fault("POST", Fault(after=300_000))
    farm.fault("POST", Fault(after=1))
    rows = ({"prompt": f"prompt {number} " + "x" * 100} for number in range(10_000))
    job = client.submit(rows)
    sent = farm.seen("POST", "/v1/jobs")
    assert len(sent) == 3
    assert len({request.headers["idempotency-key"] for request in sent}) == 1
    assert job.counts.total == 10_000
    assert [row["prompt"].split()[1] for row in sent[-1].rows()] == [str(n) for n in range(10_000)]
    assert len(farm.jobs) == 1


def test_busy_farms_are_asked_again_when_they_say(farm: StubFarm, client: Client) -> None:
    in_progress = errors.InProgress().body()
    farm.fault("POST", Fault(409, in_progress, {"retry-after": "1"}))
    farm.fault("POST", Fault(429, errors.LimitExceeded().body(), {"retry-after": "0"}))
    farm.fault("POST", Fault(503, {}))
    started = time.monotonic()
    assert client.submit(["x"]).counts.total == 1
    assert 1.0 <= time.monotonic() - started < 4.0
    assert len(farm.seen("POST", "/v1/jobs")) == 4


def test_a_busy_farm_is_not_asked_for_ever(farm: StubFarm) -> None:
    for _ in range(50):
        farm.fault("GET", Fault(503, errors.RedisDown().body()))
    with Client(farm.url, patience=0.5) as client, pytest.raises(errors.RedisDown):
        client.job("job_1")
    assert 2 < len(farm.requests) < 10


def test_errors_come_back_as_their_classes(farm: StubFarm, client: Client) -> None:
    error = errors.BadRow("size 65x65 is not known", param="size", line=3)
    farm.fault("POST", Fault(400, error.body()))
    with pytest.raises(errors.BadRow, match="line 3: size 65x65 is not known") as caught:
        client.submit(["x"])
    assert (caught.value.param, caught.value.line) == ("size", 3)
    assert len(farm.requests) == 1, "what is wrong is not sent again"
    with pytest.raises(errors.NotFound):
        client.job("job_9")
    with pytest.raises(errors.NotFound, match="no job id"):
        client.job("../v1/models")
    farm.fault("GET", Fault(418, {"error": "odd"}))
    with pytest.raises(errors.Error, match="418"):
        client.models()


def test_no_farm_is_told_at_once_with_the_remedy() -> None:
    with Client("http://127.0.0.1:9", patience=60) as client:
        started = time.monotonic()
        with pytest.raises(errors.Unavailable, match="PROMPTMILL_URL"):
            client.job("job_1")
    assert time.monotonic() - started < 10
    with pytest.raises(errors.SettingInvalid, match="PROMPTMILL_URL"):
        Client("localhost:8000")


def test_a_lost_reply_to_a_retry_is_not_repeated(farm: StubFarm, client: Client) -> None:
    farm.add(["bad"])
    job = client.job("job_1")
    farm.fault("POST", Fault(after=0))
    with pytest.raises(errors.Unavailable):
        job.retry()
    assert len(farm.seen("POST", "/v1/jobs/job_1/retry")) == 1
    job.retry(["render_failed"])
    assert json.loads(farm.seen("POST", "/v1/jobs/job_1/retry")[-1].body) == {
        "codes": ["render_failed"]
    }


def test_wait_reports_until_the_job_is_finished(farm: StubFarm, client: Client) -> None:
    farm.add(["a", "b", "c", "d"])["state"] = "running"
    steps = iter([1, 2, 3, 4])

    def rendered(job: dict[str, Any]) -> None:
        done = next(steps, 4)
        job["counts"] |= {"done": done, "queued": 4 - done}
        job["state"] = "completed" if done == 4 else "running"

    farm.rendered = rendered
    job, seen = client.job("job_1"), []
    job.wait(lambda now: seen.append(now.counts.done))
    assert seen == [2, 4] and job.succeeded, "not more often than once a second, and the end"
    farm.rendered = lambda job: None
    farm.jobs["job_1"]["state"] = "running"
    with pytest.raises(TimeoutError):
        job.wait(timeout=0.2)


def test_lists_run_over_pages(farm: StubFarm, client: Client) -> None:
    farm.page = 3
    for _ in range(7):
        farm.add(["a", "bad", "c", "bad", "e", "f", "g"])
    assert [job.id for job in client.jobs()] == [f"job_{n}" for n in range(7, 0, -1)]
    job = client.job("job_1")
    assert [image.index for image in job.images()] == list(range(7))
    assert [image.index for image in job.images(state="failed", code="render_failed")] == [1, 3]
    assert [image.index for image in job.images(after=4)] == [5, 6]
    assert job.content(0) == b"picture of a"


def test_objects_of_a_query_are_written_as_the_farm_reads_them(
    farm: StubFarm, client: Client
) -> None:
    rows = [{"prompt": "a"}]
    client.submit(rows, metadata={"team": "ü", "on": True}, map={"seed": "s"})
    query = farm.seen("POST", "/v1/jobs")[-1].query
    assert json.loads(query["metadata"][0]) == {"team": "ü", "on": True}
    assert query["map"] == ["seed=s"]


def test_actions_change_the_job(farm: StubFarm, client: Client) -> None:
    farm.add(["a"])
    job = client.job("job_1")
    assert [job.pause().state, job.resume().state, job.cancel().state] == [
        "paused",
        "queued",
        "cancelled",
    ]
    job.delete()
    with pytest.raises(errors.NotFound):
        job.refresh()


def test_rows_that_failed_are_taken_back_without_their_error(
    farm: StubFarm, client: Client, tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "bad one", "seed": 5, "id": "r1", "shop": "north"},
        {"prompt": "fine"},
        {"prompt": "bad two"},
    ]
    client.submit(rows).download(tmp_path)
    path = tmp_path / "failures.jsonl"
    failures = [json.loads(line) for line in path.read_text().splitlines()]
    assert failures[0]["_error"]["code"] == "render_failed"
    assert (failures[0]["_error"]["index"], failures[1]["_error"]["row"]) == (0, 2)
    path.write_text(path.read_text().replace("bad two", "good two"))
    client.submit(path)
    again = farm.seen("POST", "/v1/jobs")[-1].rows()
    assert again == [
        {
            "prompt": "bad one",
            "seed": 5,
            "steps": 1,
            "guidance": 0.0,
            "size": "64x64",
            "id": "r1",
            "shop": "north",
        },
        {"prompt": "good two", "seed": 102, "steps": 1, "guidance": 0.0, "size": "64x64"},
    ]
    with path.open("rb") as file:
        client.submit(file)
    assert farm.seen("POST", "/v1/jobs")[-1].rows() == again
    client.submit(failures)
    assert "_error" not in farm.seen("POST", "/v1/jobs")[-1].body.decode()
