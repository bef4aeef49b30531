"""Model name → generator, imported only when asked for: a new generator is one file
beside this one and one line here. A checkpoint goes to the library that it was made with."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, cast

from promptmill import errors, models
from worker.generators import checkpoint
from worker.generators.base import Generator
from worker.generators.options import read as read_options

FACTORIES: Mapping[str, str] = {
    "emoji-gan": "worker.generators.gan:EmojiGan",
    "stub": "worker.generators.stub:Stub",
}
LIBRARIES: Mapping[str, str] = {
    "diffusers": "worker.generators.diffusers:Diffusers",
    "transformers": "worker.generators.transformers:Autoregressive",
}
SEEDED = ("emoji-gan",)  # registered by `migrate`, before any worker has served them


def create(model: str, options: str = "") -> Generator:
    """An unloaded generator of what PROMPTMILL_MODEL names; options: what
    PROMPTMILL_MODEL_OPTIONS names. Raises as `require` does."""
    found = require(model)
    if found is None:
        return cast(Generator, _import(FACTORIES[model])())
    kind: Callable[..., Generator] = _import(LIBRARIES[found.kind])
    return kind(found, read_options(options))


def require(model: str) -> checkpoint.Checkpoint | None:
    """The checkpoint that PROMPTMILL_MODEL names, None for a generator of promptmill's own;
    imports none of them. Raises `errors.ModelNotFound` with the known names, and
    `errors.Error` for a checkpoint that is not here or cannot be served."""
    if model.startswith(models.HUB) or models.is_folder(model):
        return checkpoint.find(model)
    if model not in FACTORIES:
        known = ", ".join(sorted(FACTORIES))
        raise errors.ModelNotFound(
            f"PROMPTMILL_MODEL={model!r} is not a generator of promptmill (it has {known}, and "
            "checkpoints: hf:ORG/NAME or a folder)"
        )
    return None


def _import(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def seeds() -> list[models.Model]:
    """The models that a fresh farm accepts jobs for; the fingerprint is known only once
    a worker has loaded the weights."""
    return [models.Model(name=name, caps=create(name).caps, fingerprint="") for name in SEEDED]
