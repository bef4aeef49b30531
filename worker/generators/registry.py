"""Model name → generator, imported only when asked for: a new generator is one file
beside this one and one line here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import cast

from promptmill import errors, models
from worker.generators.base import Generator

FACTORIES: Mapping[str, str] = {
    "emoji-gan": "worker.generators.gan:EmojiGan",
    "stub": "worker.generators.stub:Stub",
}
SEEDED = ("emoji-gan",)  # registered by `migrate`, before any worker has served them


def create(name: str) -> Generator:
    """An unloaded generator. Raises `errors.ModelNotFound` with the known names."""
    if name not in FACTORIES:
        known = ", ".join(sorted(FACTORIES))
        raise errors.ModelNotFound(
            f"PROMPTMILL_MODEL={name!r} is not a generator of promptmill (it has {known})"
        )
    module, _, attribute = FACTORIES[name].partition(":")
    return cast(Generator, getattr(importlib.import_module(module), attribute)())


def seeds() -> list[models.Model]:
    """The models that a fresh farm accepts jobs for; the fingerprint is known only once
    a worker has loaded the weights."""
    return [models.Model(name=name, caps=create(name).caps, fingerprint="") for name in SEEDED]
