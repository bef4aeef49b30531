"""The official OpenAI client, unmodified, against the image endpoint and the models."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from tests.integration.api_farm import ApiFarm
from tests.servers import wait_until

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[ApiFarm]:
    with ApiFarm(tmp_path_factory.mktemp("farm"), valkey_url) as served:
        yield served


@pytest.fixture
def working(farm: ApiFarm) -> Iterator[ApiFarm]:
    """A farm whose worker renders whatever comes."""
    farm.worker.report()
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            if not farm.worker.drain():
                over.wait(0.02)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield farm
    over.set()
    thread.join(10)


@pytest.fixture
def client(farm: ApiFarm) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{farm.url}/v1", api_key="any", max_retries=2) as made:
        yield made


def test_an_image_by_its_bytes(working: ApiFarm, client: openai.OpenAI) -> None:
    made = client.images.generate(
        prompt="a heart",
        model=working.model,
        size="32x32",
        response_format="b64_json",
        extra_body={"seed": 7, "num_inference_steps": 3, "negative_prompt": "blue"},
    )
    assert made.data is not None and made.output_format == "png" and made.size == "32x32"
    [one] = made.data
    data = base64.b64decode(one.b64_json or "")
    assert hashlib.sha256(data).hexdigest() == one.sha256  # type: ignore[attr-defined]
    assert one.seed == 7 and one.url is None  # type: ignore[attr-defined]
    job = working.job(made.job_id)  # type: ignore[attr-defined]
    assert job["priority"] == "interactive" and job["counts"]["done"] == 1
    [image] = working.images(job["id"])
    assert image["steps"] == 3 and image["negative_prompt"] == "blue"


def test_several_images_by_link(working: ApiFarm, client: openai.OpenAI) -> None:
    made = client.images.generate(prompt="hearts", n=3, size="auto")
    assert made.data is not None and len(made.data) == 3
    pictures = {httpx.get(one.url or "").content for one in made.data}
    assert len(pictures) == 3
    assert {one.seed for one in made.data} == {  # type: ignore[attr-defined]
        image["seed"]
        for image in working.images(made.job_id)  # type: ignore[attr-defined]
    }


def test_the_stream_ends_with_each_image(working: ApiFarm, client: openai.OpenAI) -> None:
    events = list(client.images.generate(prompt="a star", stream=True, size="32x32"))
    assert [event.type for event in events] == ["image_generation.completed"]
    assert base64.b64decode(events[0].b64_json)[1:4] == b"PNG"
    assert events[0].size == "32x32"


def test_the_same_key_renders_once(working: ApiFarm, client: openai.OpenAI) -> None:
    headers = {"Idempotency-Key": "once"}
    first, again = (client.images.generate(prompt="once", extra_headers=headers) for _ in range(2))
    assert first.job_id == again.job_id  # type: ignore[attr-defined]


def test_many_clients_at_once(working: ApiFarm, client: openai.OpenAI) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(
            pool.map(
                lambda n: client.images.generate(
                    prompt=f"number {n}", response_format="b64_json", extra_body={"seed": n}
                ),
                range(24),
            )
        )
    for number, one in enumerate(made):
        assert one.data is not None and one.data[0].seed == number  # type: ignore[attr-defined]
    told = base64.b64decode((made[5].data or [])[0].b64_json or "")
    [image] = working.images(made[5].job_id)  # type: ignore[attr-defined]
    assert hashlib.sha256(told).hexdigest() == image["sha256"]


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"size": "31x7"}, "size"),
        ({"n": 11}, "n"),
        ({"quality": "hd"}, "quality"),
        ({"background": "transparent"}, "background"),
        ({"extra_body": {"guidance": 7.0}}, "guidance"),
        ({"extra_body": {"lora": "none"}}, "lora"),
        ({"extra_body": {"nonsense": 1}}, "nonsense"),
        ({"extra_body": {"seed": "seven"}}, "seed"),
        ({"extra_body": {"stream": "yes"}}, "stream"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(
    client: openai.OpenAI, given: dict[str, object], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(prompt="a heart", **given)  # type: ignore[call-overload]
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error" and caught.value.request_id


def test_an_unknown_model_is_a_404_that_lists_the_known(
    farm: ApiFarm, client: openai.OpenAI
) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.images.generate(prompt="a heart", model="dall-e-9")
    assert caught.value.code == "model_not_found" and farm.model in str(caught.value)


def test_an_image_that_fails_is_not_asked_for_again(
    working: ApiFarm, client: openai.OpenAI
) -> None:
    before = len(working.http.get("/v1/jobs", params={"limit": 1000}).json()["data"])
    with pytest.raises(openai.InternalServerError) as caught:
        client.images.generate(prompt="fail this one")
    assert "no such picture" in str(caught.value) and caught.value.code == "render_failed"
    after = len(working.http.get("/v1/jobs", params={"limit": 1000}).json()["data"])
    assert after == before + 1


def test_a_client_that_leaves_cancels_what_it_asked_for(
    farm: ApiFarm, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    farm.worker.report()
    with pytest.raises(httpx.ReadTimeout):
        farm.http.post("/v1/images/generations", json={"prompt": "left behind"}, timeout=1.0)

    def cancelled() -> bool:
        newest = farm.http.get("/v1/jobs").json()["data"][0]
        return newest["name"] == "left behind" and newest["state"] in ("cancelling", "cancelled")

    wait_until(cancelled, seconds=20, what="the job is cancelled")
    count = 'route="/v1/images/generations",status="499"'
    wait_until(lambda: count in farm.http.get("/metrics").text, seconds=5, what="it is counted")
    assert "its client went away" in caplog.text
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


def test_models_have_the_shape_that_the_client_reads(farm: ApiFarm, client: openai.OpenAI) -> None:
    [model] = client.models.list()
    assert model.id == farm.model and model.owned_by == "promptmill" and model.created > 1e9
    assert client.models.retrieve(farm.model).id == farm.model
