"""What the libraries say while they read weights, as errors of promptmill: each names what was
read. Nothing is imported before a call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TypeVar

from promptmill import errors
from worker.generators import device as devices
from worker.generators.base import OutOfMemory

T = TypeVar("T")
_NAMED = 3  # of missing tensors, in a message


@contextmanager
def told(what: object) -> Iterator[None]:
    """What a library raises over damaged weights, or over some that are another model's, becomes
    an `errors.Error`. Too little memory stays what it is."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        if devices.is_out_of_memory(error):
            raise
        raise errors.Error(f"{what} cannot be loaded: {error}") from error


def require_all(what: object, missing: Collection[str]) -> None:
    """Raises `errors.Error` naming tensors that are `missing`: the libraries fill them with
    random numbers, others at each load, under one fingerprint."""
    if missing:
        first = ", ".join(sorted(missing)[:_NAMED])
        rest = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise errors.Error(f"{what} is incomplete, fetch it again: it lacks {first}{rest}")


def run(call: Callable[[], T], what: str, device: str) -> T:
    """What `call` answers. Raises `errors.TooLarge` when the memory does not suffice."""
    try:
        return devices.run(call)
    except OutOfMemory as problem:
        raise errors.TooLarge(
            f"{what} does not fit into the memory that {device} has free: choose a smaller "
            f"PROMPTMILL_QUANTIZATION or a larger device ({problem})"
        ) from problem
