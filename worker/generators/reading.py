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
_LONGEST = 300  # characters of a library's own words
_FAULTS = (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError)


@contextmanager
def told(what: object) -> Iterator[None]:
    """What a library raises over damaged weights, or over some that are another model's, becomes
    an `errors.ModelInvalid`. Too little memory stays what it is."""
    from safetensors import SafetensorError

    try:
        yield
    except _FAULTS as error:
        raise _refusal(what, error) from error
    except (RuntimeError, SafetensorError) as error:
        if devices.is_out_of_memory(error):
            raise
        raise _refusal(what, error) from error


def _refusal(what: object, error: Exception) -> errors.ModelInvalid:
    """One line: some libraries print pages of tensor names, and advise what is no setting here."""
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    shown = first if len(first) <= _LONGEST else f"{first[:_LONGEST]} …"
    return errors.ModelInvalid(f"{what} cannot be loaded: {shown}")


def require_all(what: object, missing: Collection[str]) -> None:
    """Raises `errors.ModelInvalid` naming tensors that are `missing`: the libraries fill them with
    random numbers, others at each load, under one fingerprint."""
    if missing:
        first = ", ".join(sorted(missing)[:_NAMED])
        rest = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise errors.ModelInvalid(f"{what} is incomplete, fetch it again: it lacks {first}{rest}")


def run(call: Callable[[], T], what: str, device: str) -> T:
    """What `call` answers. Raises `errors.TooLarge` when the memory does not suffice."""
    try:
        return devices.run(call)
    except OutOfMemory as problem:
        raise errors.TooLarge(
            f"{what} does not fit into the memory that {device} has free: choose a smaller "
            f"PROMPTMILL_QUANTIZATION or a larger device ({problem})"
        ) from problem
