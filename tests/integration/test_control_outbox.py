"""Webhooks: signed, delivered once, tried again for a day, and never sent to an address
inside the network unless a setting allows it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from promptmill import addresses, errors
from promptmill.store import outbox as stored
from tests.integration.control_bench import Bench, Clock, bench
from tests.integration.receiver import Receiver, receiving
from worker.control import outbox as outbox_module
from worker.control import webhook
from worker.control.finaliser import Finaliser
from worker.control.outbox import BACKOFF, Outbox, Share

pytestmark = pytest.mark.servers


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as received:
        yield received


@pytest.fixture
def farm(database_url: str, valkey_url: str, tmp_path: Path) -> Iterator[Bench]:
    with bench(database_url, valkey_url, tmp_path) as made:
        yield made


@pytest.fixture
def clock() -> Clock:
    return Clock(time.time())


@pytest.fixture
def outbox(farm: Bench, clock: Clock) -> Iterator[Outbox]:
    made = Outbox(farm.db, farm.settings, clock=clock)
    yield made
    made.close()


def drain(farm: Bench, outbox: Outbox, receiver: Receiver) -> None:
    """Sends what the making of the job has written, and forgets it."""
    while outbox.step():
        pass
    receiver.got.clear()


def at(clock: Clock, monkeypatch: pytest.MonkeyPatch, farm: Bench, later: float) -> None:
    """Moves the clock of the outbox and of the store."""
    clock.now += later
    now = clock.now
    monkeypatch.setattr(type(farm.db), "now", lambda self: now)


def test_a_completed_job_is_told_once_and_signed(
    farm: Bench, outbox: Outbox, receiver: Receiver
) -> None:
    job = farm.submit(3, webhook=receiver.url)
    drain(farm, outbox, receiver)
    farm.work_off("w")
    Finaliser(farm.db, farm.queues, farm.settings).step()
    assert outbox.step() == 1
    assert outbox.step() == 0
    ((headers, body),) = receiver.got
    event = json.loads(body)
    assert event["type"] == "job.completed"
    assert event["id"] == headers["webhook-id"]
    assert event["data"]["id"] == job.public_id
    assert event["data"]["counts"] == {"total": 3, "done": 3, "failed": 0}
    assert b"prompt" not in body
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(farm.settings.webhook_secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 300
    assert headers["host"] == receiver.url.split("/")[2]


def test_failures_are_tried_again_with_the_same_id(
    farm: Bench,
    outbox: Outbox,
    receiver: Receiver,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    farm.submit(3, webhook=receiver.url)
    receiver.statuses = [500, 503, 302]
    for wait in BACKOFF[:3]:
        assert outbox.step() == 0
        assert outbox.step() == 0, "not before its time"
        at(clock, monkeypatch, farm, wait + 0.1)
    assert outbox.step() == 1
    assert outbox.step() == 0
    assert len(receiver.got) == 4
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert len({headers["webhook-timestamp"] for headers, _ in receiver.got}) > 1


def test_an_event_is_given_up_after_a_day(
    farm: Bench,
    outbox: Outbox,
    receiver: Receiver,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    farm.submit(3, webhook=receiver.url)
    receiver.statuses = [500] * 100
    for wait in (*BACKOFF, 0.0):
        assert outbox.step() == 0
        at(clock, monkeypatch, farm, wait + 0.1)
    at(clock, monkeypatch, farm, 10 * 86_400)
    assert outbox.step() == 0
    assert len(receiver.got) == len(BACKOFF) + 1
    assert outbox.given_up == 1
    assert 0.9 * 86_400 < sum(BACKOFF) < 1.2 * 86_400


def test_a_receiver_that_is_gone_for_good_is_not_asked_again(
    farm: Bench, outbox: Outbox, receiver: Receiver
) -> None:
    farm.submit(3, webhook=receiver.url)
    receiver.statuses = [410]
    assert outbox.step() == 0
    assert outbox.given_up == 1
    assert stored.due(farm.db, 10) == []


def test_private_addresses_are_refused_at_every_attempt(
    farm: Bench, receiver: Receiver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also behind a name that was public a moment ago."""
    answers = [["127.0.0.1"], ["93.184.215.14", "127.0.0.1"], ["::ffff:10.0.0.1"]]
    asked: list[str] = []

    def find(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers.pop(0)

    strict = replace(farm.settings, webhook_networks="public")
    outbox = Outbox(farm.db, strict, find=find, clock=clock)
    port = receiver.url.split(":")[2].split("/")[0]
    farm.submit(3, webhook=f"http://hooks.example:{port}/hook")
    for wait in BACKOFF[:3]:
        assert outbox.step() == 0
        at(clock, monkeypatch, farm, wait + 0.1)
    outbox.close()
    assert asked == ["hooks.example"] * 3
    assert receiver.got == []


def test_the_address_that_was_checked_is_the_one_called(
    farm: Bench, receiver: Receiver, clock: Clock
) -> None:
    outbox = Outbox(farm.db, farm.settings, find=lambda *_: ["127.0.0.1"], clock=clock)
    port = receiver.url.split(":")[2].split("/")[0]
    farm.submit(3, webhook=f"http://no-such-name.invalid:{port}/hook")
    assert outbox.step() == 1
    outbox.close()
    assert receiver.got[0][0]["host"] == f"no-such-name.invalid:{port}"


def test_a_dead_receiver_delays_no_other(farm: Bench, outbox: Outbox, receiver: Receiver) -> None:
    for _ in range(3):
        farm.submit(1, webhook="http://127.0.0.2:9/dead")
    farm.submit(1, webhook=receiver.url)
    assert outbox.step() == 1
    waiting = stored.due(farm.db, 10)
    assert len(waiting) == 2, "after its first failure a host's others wait their turn"
    assert all(event.attempts == 0 for event in waiting)


@pytest.mark.parametrize("url", ["http://127.0.0.2:9/dead", "http://127.0.0.2:9/dead/{}"])
def test_however_many_wait_for_a_dead_receiver(
    farm: Bench,
    outbox: Outbox,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
) -> None:
    """Of one address or of many; a round that has seen enough is gone on with by the next."""
    monkeypatch.setattr(outbox_module, "AT_ONCE", 4)
    monkeypatch.setattr(outbox_module, "PAGES", 2)
    for number in range(24):
        farm.submit(1, webhook=url.format(number))
    farm.submit(1, webhook=receiver.url)
    rounds = next(number for number in range(1, 9) if outbox.step())
    assert rounds == (1 if url.format(0) == url else 4)
    assert len(receiver.got) == 1
    for _ in range(4):
        outbox.step()
    assert len(receiver.got) == 1
    assert len(stored.due(farm.db, 99)) < 24, "the dead one is asked, too"


def test_every_host_has_one_share() -> None:
    shares = [Share(number, 4) for number in range(4)]
    for host in ("a.example", "b.example", "", "127.0.0.1"):
        assert sum(share.has(host) for share in shares) == 1


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "::127.0.0.1",
        "::a9fe:a9fe",
        "::ffff:0:127.0.0.1",
        "64:ff9b:1::7f00:1",
        "fec0::1",
        "3fff::1",
        "5f00::1",
        "2001:470::5efe:a00:1",
        "2001:470::200:5efe:a00:1",
        "192.88.99.1",
        "2001::1",
        "2001:db8::1",
    ],
)
def test_addresses_inside_are_not_public(address: str) -> None:
    assert not addresses.is_public(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_addresses_outside_are_public(address: str) -> None:
    assert addresses.is_public(address)


def test_only_http_is_called() -> None:
    for url in ("ftp://example.com/", "file:///etc/passwd", "http:///x"):
        with pytest.raises(webhook.Refused):
            webhook.check(httpx.URL(url), lambda *_: ["93.184.215.14"], any_network=False)


def test_secrets_are_read_as_the_standard_writes_them() -> None:
    assert webhook.key_of("whsec_" + base64.b64encode(b"abc").decode()) == b"abc"
    assert webhook.key_of("plain") == b"plain"
    with pytest.raises(errors.SettingInvalid):
        webhook.key_of("whsec_***")
    event = webhook.Event("evt_1", "https://example.com", b"{}")
    assert "webhook-signature" not in webhook.headers(b"", event, 1)
