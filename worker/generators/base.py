"""The generator protocol: what a text-to-image model must offer to be farmed. Nothing
here knows of queues, databases or stores; batching, padding, locks and retries are
written once, around it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from promptmill.jobs import Item
from promptmill.models import Caps

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Pixels: TypeAlias = "NDArray[np.uint8]"
Watch: TypeAlias = Callable[[int, int], None]  # told (steps done, steps in all)
BROKEN = "the model made numbers that are no picture (NaN)"


@dataclass(frozen=True, slots=True)
class Input:
    """What an item with a source starts from, at the item's own size. pixels: uint8
    [H, W, 3]. mask: uint8 [H, W], 255 where the picture is to be made anew, 0 where it
    stays; None for a task without one. Read-only: others may look at the same arrays."""

    pixels: Pixels
    mask: Pixels | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """What PROMPTMILL_DEVICE and PROMPTMILL_QUANTIZATION come to on this machine, and why."""

    device: str
    quantization: str
    why: str


class OutOfMemory(Exception):
    """The device has too little memory for this batch: a smaller one may pass."""


class Rejected(Exception):
    """Some of what the model made is no picture to give out. reasons: by place in the batch, of
    what its own check refuses; broken: the places of what holds numbers that are none (NaN);
    pixels: of the whole batch."""

    def __init__(
        self, reasons: Mapping[int, str], pixels: Pixels, *, broken: Collection[int] = ()
    ) -> None:
        super().__init__("; ".join([*reasons.values(), *[BROKEN] * bool(broken)]))
        self.reasons = reasons
        self.broken = broken
        self.pixels = pixels


def broken(made: Tensor) -> list[int]:
    """The places of a batch whose numbers are not all finite."""
    return [k for k, row in enumerate(made) if not row.isfinite().all()]


class Generator(Protocol):
    """One text-to-image model, held by one process and called by one thread at a time."""

    name: str
    caps: Caps

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the bytes: weights, quantization, fixed shapes of the
        text encoder, device class, library versions. Stable after `load`."""
        ...

    def resolve(self, *, device: str, quantization: str) -> Resolved:
        """What `load` would do with these, without the weights. Raises
        `errors.UnsupportedParameter` with the reason for what cannot run here."""
        ...

    def load(self, *, device: str, quantization: str) -> None:
        """Reads the weights. Raises `errors.Error` naming the file when they are damaged
        or missing, and `errors.UnsupportedParameter` for a quantization it lacks."""
        ...

    def warmup(self, shapes: Sequence[int]) -> None:
        """Runs each batch shape once, so that the first job pays no compilation."""
        ...

    def generate(self, items: Sequence[Item], inputs: Sequence[Input] = ()) -> Pixels:
        """Renders `items`, whose number is one of `caps.batch_shapes` and which share a
        bucket, to uint8 [B, H, W, 3]. inputs: one for each item where the task starts from
        a source (`jobs.SOURCE_TASKS`), else none. An image depends on its own item and
        input only. Raises `OutOfMemory`, or anything else if an item cannot be rendered."""
        ...

    def close(self) -> None:
        """Frees the device."""
        ...


class Scorer(Protocol):
    """What a generator offers beside, whose `caps.scores` is set."""

    def score(self, items: Sequence[Item], pixels: Pixels) -> Sequence[float]:
        """How well each picture of uint8 [N, H, W, 3] shows what its item asks for, higher
        is better; any N. It depends on its own item and picture alone, as their bytes do, and
        what decides it belongs to the fingerprint. May be called from another thread while
        `generate` runs."""
        ...


@runtime_checkable
class Stepwise(Protocol):
    """A generator whose pictures take many steps: it calls `watch` after each, which may
    raise to abandon the batch."""

    watch: Watch | None


@runtime_checkable
class Preparing(Protocol):
    """A generator that can begin its work before its turn."""

    def prepare(self, items: Sequence[Item]) -> None:
        """Does what needs no device and keeps it for a while: `generate` and `score` of these
        items are faster then, and never different. For any thread, while others run."""
        ...


@runtime_checkable
class Roomy(Protocol):
    """A generator that knows how much memory its device has left."""

    def room(self) -> float:
        """The share of the device's memory that was free at the worst moment since the
        last call."""
        ...
