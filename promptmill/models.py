"""What a model can do, as plain data: the API validates and buckets from it and never
imports a generator. Workers register it; the table `models` keeps it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from promptmill import errors, jobs

HUB = "hf:"  # hf:ORG/NAME[@REVISION]: a checkpoint as the Hugging Face hub keeps it
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,100}", re.ASCII)


_COARSE: Mapping[str, Callable[[str], object]] = {  # what of a bucket's field tells its kind
    "guidance": lambda value: float(value) > 1,
    "lora": bool,
}


def is_folder(model: str) -> bool:
    """Whether PROMPTMILL_MODEL means a folder on this machine."""
    return not model.startswith(HUB) and ("/" in model or model.startswith((".", "~")))


def served_name(model: str) -> str:
    """The name that jobs call a model by, from PROMPTMILL_MODEL: ORG/NAME of
    `hf:ORG/NAME@REVISION`, the last part of a folder's path, else the value itself. Raises
    `errors.SettingInvalid` for what cannot be a name."""
    if model.startswith(HUB):
        name = model.removeprefix(HUB).partition("@")[0]
        if not _HUB_NAME.fullmatch(name):
            raise errors.SettingInvalid(
                f"PROMPTMILL_MODEL={model!r} must be hf:ORG/NAME or hf:ORG/NAME@REVISION"
            )
        return name
    name = Path(model).expanduser().resolve().name if is_folder(model) else model
    if not _NAME.fullmatch(name):
        raise errors.SettingInvalid(
            f"PROMPTMILL_MODEL={model!r}: {name!r} cannot be a model's name (letters, digits, "
            "dot, dash and underscore can)"
        )
    return name


@dataclass(frozen=True, slots=True)
class Caps:
    """Capabilities of one generator.

    sizes: (width, height) choices in pixels. parameters: item fields beyond prompt and
    seed that change its output; any other value than the default is refused. steps,
    guidance: (least, default, most). batch_shapes: the batch sizes it runs, ascending.
    batch_invariant: same bytes at every batch shape, else one fixed shape is used.
    bucket_fields: item fields that must match inside one micro-batch. budget: pixels that
    one micro-batch may hold, so that large images make small batches; 0 for any number.
    portion: images of a micro-batch that are rendered before whoever waits for a single one has
    a turn, for batch-invariant generators whose time grows with the batch; 0: all of them.
    loras: names of the adapters that an item may ask for. cost: seconds per image, a first
    guess for fair queueing until it is measured. scores: it scores its pictures. expander:
    fingerprint of the language model that its workers write prompts out with; empty when
    they have none.
    """

    sizes: tuple[tuple[int, int], ...]
    tasks: tuple[str, ...] = ("text2image",)
    parameters: tuple[str, ...] = ()
    steps: tuple[int, int, int] = (1, 1, 1)
    guidance: tuple[float, float, float] = (0.0, 0.0, 0.0)
    batch_shapes: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    quantizations: tuple[str, ...] = ("none",)
    batch_invariant: bool = False
    bucket_fields: tuple[str, ...] = ("task", "width", "height")
    budget: int = 0
    portion: int = 0
    loras: tuple[str, ...] = ()
    cost: float = 0.01
    max_prompt: int = 32_000
    scores: bool = False
    expander: str = ""

    @property
    def max_batch(self) -> int:
        return self.batch_shapes[-1]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Caps:
        frozen: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in data.items()
        }
        frozen["sizes"] = tuple((int(w), int(h)) for w, h in data["sizes"])
        return Caps(**frozen)

    def bucket(self, item: jobs.Item) -> str:
        """The bucket of an item: its `bucket_fields` as `name=value` pairs, in order."""
        return ",".join(f"{name}={getattr(item, name)}" for name in self.bucket_fields)

    @staticmethod
    def kind(bucket: str) -> str:
        """The kind of a bucket: what of its fields the best batch shape hangs on. Steps and
        strength are how often the same is computed; of guidance counts whether it is used, which
        doubles the batch, and of an adapter whether there is one."""
        told = dict(pair.partition("=")[::2] for pair in bucket.split(","))
        kept = [(name, value) for name, value in told.items() if name not in ("steps", "strength")]
        return ",".join(f"{name}={_COARSE.get(name, str)(value)}" for name, value in kept)

    def most_of(self, item: jobs.Item) -> int:
        """The largest batch shape of images like `item` that the budget allows."""
        if not self.budget:
            return self.max_batch
        fitting = self.budget // (item.width * item.height)
        return max((s for s in self.batch_shapes if s <= fitting), default=self.batch_shapes[0])

    def shape_for(self, count: int) -> int:
        """The batch shape that `count` items are padded to."""
        if not self.batch_invariant:
            return self.max_batch
        return next((s for s in self.batch_shapes if s >= count), self.max_batch)


@dataclass(frozen=True, slots=True)
class Model:
    """A registered model: its name, capabilities and the fingerprint of its weights.
    registered_at: when it was last told of, Unix seconds."""

    name: str
    caps: Caps
    fingerprint: str
    description: str = ""
    registered_at: float = 0.0

    def require_size(self, width: int, height: int) -> None:
        """Raises `errors.UnsupportedParameter` unless the size is one of `caps.sizes`."""
        if (width, height) not in self.caps.sizes:
            known = ", ".join(f"{w}x{h}" for w, h in self.caps.sizes)
            raise errors.UnsupportedParameter(
                f"model {self.name} has no size {width}x{height} (it has {known})", param="size"
            )
