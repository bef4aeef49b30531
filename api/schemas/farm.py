"""The farm itself: whether it is well, and the key that its manifests are checked with."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas.base import Shape


class Health(Shape):
    """Whether the process lives, or whether all it needs can be reached."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str] = Field(default={}, description="by name: ok, or what is wrong")


class PublicKey(Shape):
    """What the manifests of this farm are checked with."""

    id: str
    object: Literal["public_key"] = "public_key"
    algorithm: Literal["Ed25519"] = "Ed25519"
    public_key: str = Field(description="base64 of its 32 bytes")
    pem: str
