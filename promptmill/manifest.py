"""The signed manifest of a job: JSON lines, one per picture that is done, between a header
and a footer. The footer signs the SHA-256 of every byte before it with Ed25519, so that
anyone can check it with the public key alone, long after the farm is gone.

    {"object":"manifest","version":1,"job":…,"model":…,"final":true,…,"public_key":…}
    {"index":0,"row":0,"sample":0,"sha256":…,"bytes":…,"seed":…,"fingerprint":…,"prompt_sha256":…}
    {"object":"manifest.end","images":1,"bytes":…,"sha256":…,"signature":…}
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from promptmill import errors

VERSION: Final = 1
SEED_BYTES: Final = 32  # of a private key


def prompt_hash(prompt: str) -> str:
    """Hex SHA-256 of the prompt in UTF-8, by which a manifest names it."""
    return hashlib.sha256(prompt.encode()).hexdigest()


def key_id(public: bytes) -> str:
    """Short name of a public key."""
    return f"ed25519:{hashlib.sha256(public).hexdigest()[:16]}"


def line(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def signed_text(digest: str) -> bytes:
    """What is signed: the purpose stands before the digest, so that no signature made for
    another purpose can pass for one of a manifest."""
    return f"promptmill-manifest-v{VERSION}:{digest}".encode()


class Signer:
    """seed: the private key, SEED_BYTES random bytes. Needs `cryptography`."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed

    @cached_property
    def _key(self) -> Any:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self._seed)

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes."""
        return bytes(self._key.public_key().public_bytes_raw())

    @property
    def pem(self) -> str:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        form = PublicFormat.SubjectPublicKeyInfo
        return str(self._key.public_key().public_bytes(Encoding.PEM, form).decode())

    def write(
        self, header: Mapping[str, Any], images: Iterable[Mapping[str, Any]]
    ) -> Iterator[bytes]:
        """The lines of a manifest."""
        digest = hashlib.sha256()
        count = size = 0
        key = {"key_id": key_id(self.public), "public_key": encoded(self.public)}
        first = line({"object": "manifest", "version": VERSION, **header, **key})
        digest.update(first)
        yield first
        for image in images:
            count, size = count + 1, size + int(image["bytes"])
            text = line(image)
            digest.update(text)
            yield text
        found = digest.hexdigest()
        signature = encoded(self._key.sign(signed_text(found)))
        end = {"object": "manifest.end", "images": count, "bytes": size, "sha256": found}
        yield line({**end, "signature": signature})


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def public_key(text: str) -> bytes:
    """A public key from PEM or from base64 of its 32 bytes. Raises `errors.BadRequest`."""
    body = "".join(row for row in text.split() if row)
    if "BEGINPUBLICKEY" in body.replace("-", ""):
        body = body.replace("-", "").removeprefix("BEGINPUBLICKEY").removesuffix("ENDPUBLICKEY")
    try:
        raw = base64.b64decode(body, validate=True)
    except ValueError:  # binascii.Error, and what is not ASCII
        raw = b""
    if len(raw) not in (32, 44):  # bare, or behind the twelve bytes that say "Ed25519"
        raise errors.BadRequest("this is no Ed25519 public key (PEM, or base64 of 32 bytes)")
    return raw[-32:]


@dataclass(frozen=True, slots=True)
class Checked:
    """A manifest that is what its signature says. key: the public key that made it; final:
    whether the job was over."""

    job: str
    key: bytes
    final: bool
    images: int
    bytes: int


class Reading:
    """Goes through a manifest once. `check` is known when `images` is at its end."""

    def __init__(self, lines: Iterable[bytes], *, key: bytes | None = None) -> None:
        """key: the public key that must have signed it; None takes the manifest's own
        word, which proves that nothing was changed since, not who made it."""
        self._lines = iter(lines)
        self._key = key
        first = next(self._lines, b"")
        self.header = _object(first, 1)
        if self.header.get("object") != "manifest":
            raise errors.BadRow("this is no manifest of promptmill", line=1)
        if self.header.get("version") != VERSION:
            raise errors.BadRow("this version of manifests is not known here", line=1)
        self._digest = hashlib.sha256(first)
        self.checked: Checked | None = None

    def images(self) -> Iterator[Mapping[str, Any]]:
        """Its images in index order. Raises `errors.BadRow` when the manifest is cut short,
        was changed, or another key signed it."""
        count = size = 0
        for number, raw in enumerate(self._lines, start=2):
            fields = _object(raw, number)
            if fields.get("object") == "manifest.end":
                self._end(fields, count, size, number)
                return
            self._digest.update(raw)
            if not isinstance(fields.get("index"), int) or not isinstance(fields.get("bytes"), int):
                raise errors.BadRow("not a line of a manifest", line=number)
            count, size = count + 1, size + fields["bytes"]
            yield fields
        raise errors.BadRow("the manifest is cut short: its last line is missing")

    def _end(self, end: Mapping[str, Any], count: int, size: int, number: int) -> None:
        digest = self._digest.hexdigest()
        told = (end.get("images"), end.get("bytes"), end.get("sha256"))
        if told != (count, size, digest):
            raise errors.BadRow("the manifest was changed: its digest is another", line=number)
        named = public_key(str(self.header.get("public_key")))
        if self._key is not None and self._key != named:
            raise errors.BadRow(
                f"the manifest is signed by {key_id(named)}, not by {key_id(self._key)}", line=1
            )
        if not _is_signed(digest, str(end.get("signature")), named):
            raise errors.BadRow("the signature is wrong", line=number)
        if next(self._lines, None) is not None:
            raise errors.BadRow("there is something behind the end", line=number + 1)
        final = self.header.get("final") is True
        self.checked = Checked(str(self.header.get("job")), named, final, count, size)


def _object(raw: bytes, number: int) -> dict[str, Any]:
    try:
        fields = json.loads(raw)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise errors.BadRow("not a line of a manifest", line=number)
    return fields


def _is_signed(digest: str, signature: str, public: bytes) -> bool:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as exc:
        raise errors.BadRequest(
            "checking a signature needs the package cryptography: pip install cryptography"
        ) from exc
    try:
        raw = base64.b64decode(signature, validate=True)
        Ed25519PublicKey.from_public_bytes(public).verify(raw, signed_text(digest))
    except (binascii.Error, InvalidSignature):
        return False
    return True
