"""What a user of the official OpenAI client does, with its `base_url` and key changed and
nothing else, against a running farm. The only other calls open links, start processes and
look at their memory."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types import Batch
from PIL import Image

from tests.e2e.conftest import Stack
from tests.e2e.farm import Farm
from tests.servers import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

ENDPOINT = "/v1/images/generations"
EDITS = "/v1/images/edits"
MANY = 200_000
GROWTH = 100_000_000  # bytes of memory that a batch of MANY may cost the API


@pytest.fixture
def farm(stack: Stack) -> Farm:
    made = stack.make().start(workers=1)
    wait_until(lambda: made.serving() == 1, seconds=90, what="the worker serves")
    return made


@pytest.fixture
def client(farm: Farm) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{farm.http.base_url}/v1", api_key="any") as made:
        yield made


def request(custom_id: str, prompt: str, url: str = ENDPOINT, **body: Any) -> bytes:
    line = {"custom_id": custom_id, "method": "POST", "url": url}
    return json.dumps({**line, "body": {"prompt": prompt, **body}}).encode() + b"\n"


def submit(
    client: openai.OpenAI, lines: Iterable[bytes], window: Any = "24h", endpoint: Any = ENDPOINT
) -> Batch:
    file = client.files.create(file=("in.jsonl", b"".join(lines)), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window=window)


def until(client: openai.OpenAI, batch: Batch, *statuses: str, seconds: float = 120) -> Batch:
    wait_until(
        lambda: client.batches.retrieve(batch.id).status in statuses,
        seconds=seconds,
        what=f"the batch is {statuses}",
    )
    return client.batches.retrieve(batch.id)


def read(client: openai.OpenAI, file_id: str | None) -> dict[str, dict[str, Any]]:
    """The lines of a file by custom id; none where there is no file."""
    if file_id is None:
        return {}
    with client.files.with_streaming_response.content(file_id) as answer:
        lines = [json.loads(line) for line in answer.iter_lines()]
    assert len({line["id"] for line in lines}) == len(lines)
    return {line["custom_id"]: line for line in lines}


def test_all_that_the_client_can_ask_for(farm: Farm, client: openai.OpenAI, tmp_path: Path) -> None:
    assert [model.id for model in client.models.list()].count("stub") == 1
    images_of_all_kinds(client)
    edits_of_a_picture(client)
    files_there_and_back(client, tmp_path)
    a_batch_with_a_ruined_request(client)
    a_batch_with_wrong_lines(client)
    a_batch_of_edits(client)
    a_batch_that_is_cancelled(client)
    a_batch_whose_window_closes(client)


def images_of_all_kinds(client: openai.OpenAI) -> None:
    made = client.images.generate(
        prompt="a heart",
        n=2,
        size="128x128",
        response_format="b64_json",
        output_format="webp",
        extra_body={"seed": 7, "negative_prompt": "blue", "steps": 1, "guidance": 2.0},
    )
    assert made.data is not None and len(made.data) == 2
    for one in made.data:
        data = base64.b64decode(one.b64_json or "")
        assert hashlib.sha256(data).hexdigest() == one.sha256  # type: ignore[attr-defined]
        assert Image.open(io.BytesIO(data)).size == (128, 128)
    by_link = client.images.generate(prompt="a heart", response_format="url")
    assert by_link.data is not None
    assert httpx.get(by_link.data[0].url or "").status_code == 200
    [event] = client.images.generate(prompt="a star", stream=True, partial_images=2)
    assert event.type == "image_generation.completed"
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(prompt="a heart", size="1x1")  # type: ignore[arg-type]
    assert caught.value.param == "size" and caught.value.request_id
    with pytest.raises(openai.NotFoundError, match="model"):
        client.images.generate(prompt="a heart", model="none")


def edits_of_a_picture(client: openai.OpenAI) -> None:
    mask = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (32, 0, 64, 64))  # what is clear is painted anew
    before = Image.new("RGB", (64, 64), (10, 200, 30))
    made = client.images.edit(
        image=("before.png", png(before)),
        mask=("mask.png", png(mask)),
        prompt="a roof",
        size="64x64",  # type: ignore[arg-type]
        response_format="b64_json",
        output_compression=100,
        extra_body={"seed": 3},
    )
    assert made.data is not None
    after = Image.open(io.BytesIO(base64.b64decode(made.data[0].b64_json or ""))).convert("RGB")
    left, right = (0, 0, 32, 64), (32, 0, 64, 64)
    assert after.crop(left).tobytes() == before.crop(left).tobytes()
    assert after.crop(right).tobytes() != before.crop(right).tobytes()
    whole = client.images.edit(image=("before.png", png(before)), prompt="a roof")
    assert whole.data is not None
    assert httpx.get(whole.data[0].url or "").status_code == 200
    assert not list(client.files.list(purpose="vision")), "nothing is left of what was sent"
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.edit(image=("x.png", b"no picture"), prompt="a roof")
    assert caught.value.param == "image"


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def files_there_and_back(client: openai.OpenAI, folder: Path) -> None:
    path = folder / "notes.txt"
    path.write_bytes(b"0123456789" * 2_000_000)  # several parts of an S3 upload
    made = client.files.create(
        file=path,
        purpose="user_data",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert made.bytes == 20_000_000 and made.expires_at == made.created_at + 3600
    assert client.files.content(made.id).read() == path.read_bytes()
    assert made.id in [file.id for file in client.files.list(purpose="user_data", limit=1)]
    parts = client.uploads.upload_file_chunked(
        file=path, mime_type="text/plain", purpose="user_data", part_size=7_000_000
    )
    assert parts.file is not None and parts.file.bytes == 20_000_000
    assert client.files.content(parts.file.id).read() == path.read_bytes()
    assert client.files.delete(parts.file.id).deleted
    assert client.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)


def a_batch_with_a_ruined_request(client: openai.OpenAI) -> None:
    prompts = [f"number {n}" for n in range(40)]
    lines = [request(f"r{n}", prompt) for n, prompt in enumerate(prompts)]
    lines += [request("b64", "a star", response_format="b64_json"), request("n", "moons", n=4)]
    lines.append(request("bad", "!raise"))
    done = until(client, submit(client, lines), "completed")
    assert done.request_counts is not None
    assert done.request_counts.model_dump() == {"total": 43, "completed": 42, "failed": 1}
    output, wrong = read(client, done.output_file_id), read(client, done.error_file_id)
    assert set(output) == {*(f"r{n}" for n in range(40)), "b64", "n"} and set(wrong) == {"bad"}
    assert wrong["bad"]["response"]["body"]["error"]["code"] == "render_failed"
    assert len(output["n"]["response"]["body"]["data"]) == 4
    for name in ("r0", "r39", "b64"):
        [image] = output[name]["response"]["body"]["data"]
        data = (
            base64.b64decode(image["b64_json"])
            if "b64_json" in image
            else httpx.get(image["url"], follow_redirects=True).content
        )
        assert hashlib.sha256(data).hexdigest() == image["sha256"]


def a_batch_with_wrong_lines(client: openai.OpenAI) -> None:
    lines = [request("a", "fine"), b"{no json\n", request("a", "twice")]
    failed = until(client, submit(client, lines), "failed")
    assert failed.errors is not None and failed.errors.data is not None
    assert [(one.line, one.code) for one in failed.errors.data] == [
        (2, "invalid_json_line"),
        (3, "duplicate_custom_id"),
    ]


def a_batch_of_edits(client: openai.OpenAI) -> None:
    """Pictures by the ids of files: the same bytes as when they are sent along."""
    mask = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (32, 0, 64, 64))
    holed = Image.new("RGB", (64, 64), (10, 200, 30)).convert("RGBA")
    holed.putalpha(mask.getchannel("A"))
    sent = {
        name: (f"{name}.png", png(picture))
        for name, picture in {"holed": holed, "whole": holed.convert("RGB"), "mask": mask}.items()
    }
    ids = {name: client.files.create(file=file, purpose="vision").id for name, file in sent.items()}

    def line(name: str, picture: str, **more: Any) -> bytes:
        images = [{"file_id": picture}]
        return request(name, "a roof", EDITS, images=images, seed=3, size="64x64", **more)

    lines = [line("whole", ids["whole"]), line("holed", ids["holed"])]
    lines.append(line("masked", ids["whole"], mask={"file_id": ids["mask"]}))
    output = read(
        client,
        until(client, submit(client, lines, endpoint=EDITS), "completed").output_file_id,
    )
    for name in ("whole", "holed", "masked"):
        picture = sent["whole" if name == "masked" else name]
        given: dict[str, Any] = {"mask": sent["mask"]} if name == "masked" else {}
        alone = client.images.edit(
            image=picture, prompt="a roof", size="64x64", extra_body={"seed": 3}, **given
        )
        [made] = output[name]["response"]["body"]["data"]
        assert alone.data is not None and made["sha256"] == alone.data[0].sha256, name  # type: ignore[attr-defined]
    wrong = [line("a", "file_none"), line("b", ids["mask"], mask={"image_url": "x"})]
    failed = until(client, submit(client, wrong, endpoint=EDITS), "failed")
    assert failed.errors is not None and failed.errors.data is not None
    assert [(one.line, one.param) for one in failed.errors.data] == [
        (1, "body.images.0.file_id"),
        (2, "body.mask.file_id"),
    ]


def a_batch_that_is_cancelled(client: openai.OpenAI) -> None:
    slow = [request(f"s{n}", "slow", steps=1000) for n in range(400)]
    batch = submit(client, slow)
    wait_until(
        lambda: client.batches.retrieve(batch.id).output_file_id is not None,
        seconds=90,
        what="the first results",
    )
    client.batches.cancel(batch.id)
    ended(client, until(client, batch, "cancelled"), 400, "batch_cancelled")


def a_batch_whose_window_closes(client: openai.OpenAI) -> None:
    slow = [request(f"s{n}", "slow", steps=1000) for n in range(400)]
    over = until(client, submit(client, slow, window="8s"), "expired")
    ended(client, over, 400, "batch_expired")


def ended(client: openai.OpenAI, batch: Batch, total: int, code: str) -> None:
    """Every request is in one file or the other; those that never ran say why."""
    output, never = read(client, batch.output_file_id), read(client, batch.error_file_id)
    assert len(output) + len(never) == total and not set(output) & set(never)
    assert batch.request_counts is not None
    assert batch.request_counts.completed == len(output) < total
    assert {line["error"]["code"] for line in never.values()} == {code}
    assert all(line["response"] is None for line in never.values())


def test_what_a_killed_api_had_begun_goes_on(stack: Stack) -> None:
    """It dies when the job is made and before the batch knows of it."""
    farm = stack.make().start(workers=1)
    farm.api.kill()
    farm.start_api(PROMPTMILL_FAILPOINTS="batch.accepted=exit")
    with openai.OpenAI(base_url=f"{farm.http.base_url}/v1", api_key="any") as client:
        batch = submit(client, [request(f"r{n}", f"number {n}") for n in range(20)])
        wait_until(lambda: not farm.api.alive, seconds=60, what="the API dies")
        farm.start_api()
        done = until(client, batch, "completed", seconds=120)
        assert len(read(client, done.output_file_id)) == 20
        [job] = farm.http.get("/v1/jobs").json()["data"]
        assert job["name"] == batch.id and job["counts"]["total"] == 20


def memory(farm: Farm) -> int:
    """The most that the API ever had, in bytes."""
    status = Path(f"/proc/{farm.api.popen.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def test_200_000_requests_in_one_file_in_flat_memory(stack: Stack, tmp_path: Path) -> None:
    """Validated, queued, begun, read while it runs, cancelled, and every request told."""
    farm = stack.make().start(workers=1)
    path = tmp_path / "many.jsonl"
    with path.open("wb") as out:
        for number in range(MANY):
            out.write(request(f"request-{number:06d}", f"a picture of the number {number}"))
    with openai.OpenAI(base_url=f"{farm.http.base_url}/v1", api_key="any") as client:
        a_batch_with_wrong_lines(client)
        before = memory(farm)
        file = client.files.create(file=path, purpose="batch")
        assert file.bytes == path.stat().st_size
        batch = client.batches.create(
            input_file_id=file.id,
            endpoint=ENDPOINT,
            completion_window="24h",
            extra_body={"packing": "tar"},
        )
        running = until(client, batch, "in_progress", seconds=300)
        assert running.request_counts is not None and running.request_counts.total == MANY
        wait_until(
            lambda: read(client, client.batches.retrieve(batch.id).output_file_id),
            seconds=120,
            what="results while it runs",
        )
        client.batches.cancel(batch.id)
        over = until(client, batch, "cancelled", seconds=300)
        ended(client, over, MANY, "batch_cancelled")
        grown = memory(farm) - before
        print(f"{MANY:,} requests: the API grew by {grown / 1e6:.0f} MB")
        assert grown < GROWTH
