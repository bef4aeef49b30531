"""What a caller sees of webhooks: every attempt with its outcome, and a way to have an event
sent again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from promptmill.store import control
from tests.integration.api_farm import ApiFarm
from tests.integration.receiver import Receiver, receiving
from worker.control.outbox import BACKOFF, Outbox

pytestmark = pytest.mark.servers

SECRET = "whsec_" + "c2VjcmV0" * 4


@pytest.fixture
def farm(tmp_path: Path, valkey_url: str) -> Iterator[ApiFarm]:
    options = {"webhook_networks": "any", "webhook_secret": SECRET}
    with ApiFarm(tmp_path, valkey_url, **options) as served:
        yield served


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as received:
        yield received


class Clock:
    """Runs ahead of the world by `ahead` seconds."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock(farm: ApiFarm, monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(type(farm.db), "now", lambda _: made())
    return made


@pytest.fixture
def outbox(farm: ApiFarm, clock: Clock) -> Iterator[Outbox]:
    made = Outbox(farm.db, farm.settings, clock=clock)
    yield made
    made.close()


def log(farm: ApiFarm, job: str, **query: str) -> dict[str, object]:
    answer = farm.http.get(f"/v1/jobs/{job}/webhooks", params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_the_log_tells_each_attempt_and_when_the_next_is(
    farm: ApiFarm,
    clock: Clock,
    outbox: Outbox,
    receiver: Receiver,
) -> None:
    receiver.statuses = [503, 204]
    id = farm.submit(["a heart"], webhook=receiver.url)["id"]
    (waiting,) = log(farm, id)["data"]
    assert (waiting["state"], waiting["type"], waiting["attempts"]) == ("pending", "job.queued", [])
    outbox.step()
    (failed,) = log(farm, id)["data"]
    (attempt,) = failed["attempts"]
    assert (attempt["status"], attempt["error"]) == (503, "HTTP 503")
    assert failed["due_at"] == pytest.approx(attempt["at"] + BACKOFF[0], abs=2)
    clock.ahead += BACKOFF[0] + 1
    assert outbox.step() == 1
    (event,) = log(farm, id)["data"]
    assert (event["state"], event["due_at"]) == ("delivered", None)
    assert [tried["status"] for tried in event["attempts"]] == [503, 204]
    assert event["delivered_at"] == event["attempts"][1]["at"]
    assert [json.loads(body)["id"] for _, body in receiver.got] == [event["id"]] * 2


def test_an_unreachable_receiver_is_told_by_its_error(
    farm: ApiFarm, clock: Clock, outbox: Outbox
) -> None:
    id = farm.submit(["a heart"], webhook="http://127.0.0.1:9/nobody")["id"]
    for wait in (*BACKOFF, 0):
        outbox.step()
        clock.ahead += wait + 1
    (event,) = log(farm, id)["data"]
    assert event["state"] == "given_up"
    assert len(event["attempts"]) == len(BACKOFF) + 1
    assert event["attempts"][0]["status"] is None
    assert "ConnectError" in event["attempts"][0]["error"]
    tried_for = event["attempts"][-1]["at"] - event["attempts"][0]["at"]
    assert 20 * 3600 < tried_for < 30 * 3600, "about a day"


def test_what_was_given_up_is_sent_again_on_request(
    farm: ApiFarm,
    outbox: Outbox,
    receiver: Receiver,
) -> None:
    receiver.statuses = [410]
    id = farm.submit(["a heart"], webhook=receiver.url)["id"]
    outbox.step()
    (event,) = log(farm, id)["data"]
    assert event["state"] == "given_up", "410: the receiver wants no more"
    again = farm.http.post(f"/v1/jobs/{id}/webhooks/redeliver").json()
    assert again == {"object": "redelivery", "job_id": id, "events": 1}
    assert outbox.step() == 1
    assert log(farm, id)["data"][0]["state"] == "delivered"
    assert farm.http.post(f"/v1/jobs/{id}/webhooks/redeliver").json()["events"] == 0
    one = {"event": event["id"]}
    assert farm.http.post(f"/v1/jobs/{id}/webhooks/redeliver", params=one).json()["events"] == 1
    assert outbox.step() == 1
    ids = [headers["webhook-id"] for headers, _ in receiver.got]
    assert ids == [event["id"]] * 3


@pytest.mark.parametrize(("event", "status"), [("evt_999", 404), ("5", 400), ("evt_x", 400)])
def test_an_unknown_event_is_refused(farm: ApiFarm, event: str, status: int) -> None:
    id = farm.submit(["a heart"], webhook="http://hook.example/x")["id"]
    answer = farm.http.post(f"/v1/jobs/{id}/webhooks/redeliver", params={"event": event})
    assert answer.status_code == status
    assert event in answer.json()["error"]["message"]


def test_the_log_has_pages(farm: ApiFarm) -> None:
    id = farm.submit(["a heart"], webhook="http://hook.example/x")["id"]
    farm.http.post(f"/v1/jobs/{id}/pause")
    page = log(farm, id, limit="1")
    assert [event["type"] for event in page["data"]] == ["job.paused"]
    assert page["has_more"] is True
    rest = log(farm, id, limit="1", after=str(page["last_id"]))
    assert [event["type"] for event in rest["data"]] == ["job.queued"]
    assert rest["has_more"] is False


def test_the_openai_client_takes_our_deliveries(
    farm: ApiFarm,
    outbox: Outbox,
    receiver: Receiver,
) -> None:
    import openai

    id = farm.submit(["a heart"], webhook=receiver.url)["id"]
    farm.worker.drain()
    control.finish_ready(farm.db)
    while outbox.step():
        pass
    client = openai.OpenAI(api_key="x", base_url="http://127.0.0.1:9/v1", webhook_secret=SECRET)
    events = [client.webhooks.unwrap(body, headers) for headers, body in receiver.got]
    assert [event.type for event in events] == ["job.queued", "job.completed"]
    assert all(event.data.id == id for event in events)
    headers, body = receiver.got[-1]
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(body.replace(b"completed", b"cancelled"), headers)
