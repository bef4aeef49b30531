"""One delivery of a webhook: Standard Webhooks signature, an address that was checked
after resolution and is the one connected to, no redirects, no proxy. Knows no database."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import socket
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from promptmill import errors
from promptmill.addresses import is_public

TIMEOUT = httpx.Timeout(5.0)

Resolve = Callable[[str, int], list[str]]


class Refused(Exception):
    """The receiver's address may not be called."""


@dataclass(frozen=True, slots=True)
class Event:
    """`id` stays the same over all attempts, so that a receiver can drop a repeat."""

    id: str
    url: str
    body: bytes


def key_of(secret: str) -> bytes:
    """The signing key: `whsec_` and base64 as Standard Webhooks writes it, else the bytes
    of the text. Raises `errors.SettingInvalid`."""
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise errors.SettingInvalid(
            "PROMPTMILL_WEBHOOK_SECRET is not base64 after whsec_", param="WEBHOOK_SECRET"
        ) from None


def sign(key: bytes, event: Event, timestamp: int) -> str:
    """`v1,` and the base64 HMAC-SHA256 of `id.timestamp.body`."""
    signed = f"{event.id}.{timestamp}.".encode() + event.body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def headers(key: bytes, event: Event, timestamp: int) -> dict[str, str]:
    """Without a key the delivery is unsigned: nothing is signed with an empty secret."""
    plain = {
        "content-type": "application/json",
        "user-agent": "promptmill",
        "webhook-id": event.id,
        "webhook-timestamp": str(timestamp),
    }
    return plain | {"webhook-signature": sign(key, event, timestamp)} if key else plain


def resolve(host: str, port: int) -> list[str]:
    """The addresses of `host`, by the system's resolver. Raises `OSError`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def check(url: httpx.URL, find: Resolve, *, any_network: bool) -> str:
    """The address to connect to. Raises `Refused` if the URL is not HTTP or if any of its
    host's addresses is not public, `OSError` if it has none."""
    if url.scheme not in ("http", "https") or not url.host:
        raise Refused(f"{url} is not an http or https URL")
    addresses = find(url.host, url.port or (443 if url.scheme == "https" else 80))
    if not any_network:
        for address in addresses:
            if not is_public(address):
                raise Refused(f"{url.host} is {address}, which is not a public address")
    return addresses[0]


def post(
    client: httpx.Client, event: Event, *, key: bytes, now: float, find: Resolve, any_network: bool
) -> int:
    """One attempt; returns the HTTP status. The request goes to the very address that was
    checked: a name that changes its address between check and connect gains nothing.
    Raises `Refused`, `OSError`, `httpx.HTTPError`, `httpx.InvalidURL`."""
    url = httpx.URL(event.url)
    address = check(url, find, any_network=any_network)
    request = client.build_request(
        "POST",
        url.copy_with(host=address),
        content=event.body,
        headers=headers(key, event, int(now)) | {"host": url.netloc.decode()},
        extensions={"sni_hostname": url.host},
    )
    response = client.send(request, stream=True)  # its body is nobody's business
    response.close()
    return response.status_code


def new_client() -> httpx.Client:
    return httpx.Client(timeout=TIMEOUT, follow_redirects=False, trust_env=False)
