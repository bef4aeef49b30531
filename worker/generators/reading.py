"""What the libraries say while they read weights, as errors of promptmill: each names what was
read. Nothing is imported before a call."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TypeVar

from promptmill import errors
from worker.generators import device as devices
from worker.generators.base import BROKEN, OutOfMemory, Pixels, Rejected

T = TypeVar("T")
_NAMED = 3  # tensors in a message
_MOST = 200  # characters of what a library says
# of the machine, not of the weights
_PASSING = (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT)


@contextmanager
def told(what: object) -> Iterator[None]:
    """What a library raises over damaged weights, or over some that are another model's, becomes
    one line of `errors.ModelInvalid`, and a fault of the machine one of `errors.Error`. Too little
    memory stays what it is."""
    from safetensors import SafetensorError

    try:
        yield
    except (
        *(OSError, ValueError, LookupError, AttributeError, TypeError, ArithmeticError),
        *(ImportError, RuntimeError, SafetensorError),
    ) as error:
        if devices.is_out_of_memory(error):
            raise
        passing = getattr(error, "errno", None) in _PASSING or "CUDA" in str(error)
        kind = errors.Error if passing else errors.ModelInvalid
        raise kind(f"{what} cannot be loaded: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What a library says, on one line and without its advice."""
    text = " ".join(str(error).split())
    if found := re.search(r"[Nn]o file named \S*\.safetensors", text):
        return f"{found[0]} found: other formats (.bin) can run code and are refused"
    if found := re.search(r"size mismatch for (\S+?):|because (\S+) expected shape", text):
        return f"{found[1] or found[2]} has another shape than the model needs"
    if found := re.search(r"weights from checkpoint file for '([^']+)'", text):
        return f"{found[1]} is damaged, fetch it again"
    if type(error).__name__ == "SafetensorError":
        return "its weights are damaged, fetch them again"
    if "ignore_mismatched_sizes" in text:
        return "its tensors have other shapes than its config.json says"
    told = text if len(text) <= _MOST else f"{text[:_MOST]} …"
    return told if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {told}"


def require_all(what: object, missing: Collection[str]) -> None:
    """Raises `errors.ModelInvalid` naming tensors that are `missing`: the libraries fill them with
    random numbers, others at each load, under one fingerprint."""
    if missing:
        raise errors.ModelInvalid(
            f"{what} is incomplete, fetch it again: it lacks {_first(missing)}"
        )


def _first(names: Collection[str]) -> str:
    """The first few names, and how many more."""
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(sorted(names)[:_NAMED]) + rest


def tried(what: object, call: Callable[[], Pixels]) -> Pixels:
    """First pictures, also those that the model refuses. Raises `errors.ModelInvalid` where
    the model cannot draw or none of them is a picture."""
    try:
        with told(what):
            return call()
    except Rejected as verdict:
        if len(verdict.broken) == len(verdict.pixels):
            raise errors.ModelInvalid(f"{what} cannot be served: {BROKEN}") from verdict
        return verdict.pixels


def run(call: Callable[[], T], what: str, device: str) -> T:
    """What `call` answers. Raises `errors.TooLarge` when the memory does not suffice."""
    try:
        return devices.run(call)
    except OutOfMemory as problem:
        raise errors.TooLarge(
            f"{what} does not fit into the memory that {device} has free: choose a smaller "
            f"PROMPTMILL_QUANTIZATION or a larger device ({problem})"
        ) from problem
