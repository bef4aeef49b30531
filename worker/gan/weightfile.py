"""The files of shipped weights, without torch: read whole and checked, or refused by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from promptmill import errors

NETWORK = "generator.safetensors"
FACTS = "generator.json"
FORMAT = 1
SCALE = ".scale"
CODES = 127  # greatest code of a weight
REMEDY = "make the weights with python -m worker.gan.export"

Floats = NDArray[np.float32]
_UNSOUND = (SafetensorError, LookupError, ValueError, TypeError, AttributeError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Contents:
    """widths: channel counts by stage. ranges: stage → least and greatest value. tensors:
    weights and biases in float32. step: of training. digest: SHA-256 over both files."""

    widths: dict[str, int]
    ranges: dict[str, tuple[float, float]]
    tensors: dict[str, Floats]
    step: int
    digest: str


def read(folder: Path) -> Contents:
    """Reads and checks both files; raises `errors.Error` naming the one at fault."""
    facts_path, network_path = folder / FACTS, folder / NETWORK
    facts_bytes, network_bytes = content(facts_path), content(network_path)
    with sound(facts_path):
        facts: dict[str, Any] = json.loads(facts_bytes)
        if facts["format"] != FORMAT:
            raise errors.Error(f"{facts_path} has format {facts['format']}, not {FORMAT}: update")
        widths = {stage: int(count) for stage, count in facts["widths"].items()}
        ranges = {stage: (float(a), float(b)) for stage, (a, b) in facts["ranges"].items()}
        step, expected = int(facts["step"]), facts["sha256"]
    if hashlib.sha256(network_bytes).hexdigest() != expected:
        raise damaged(network_path)
    with sound(network_path):
        tensors = decoded(network_bytes)
    return Contents(widths, ranges, tensors, step, hashlib.sha256(facts_bytes).hexdigest())


def decoded(data: bytes) -> dict[str, Floats]:
    """Tensors of a file in float32, of float16 or of 8-bit codes with a scale for each output
    channel."""
    found, tensors = {}, load(data)
    for name, value in tensors.items():
        if name.endswith(SCALE):
            continue
        found[name] = value.astype(np.float32)
        if value.dtype == np.int8:
            shape = (-1, *[1] * (value.ndim - 1))
            found[name] *= tensors[name + SCALE].reshape(shape)
    return found


def codes(weight: Floats) -> tuple[Floats, Floats]:
    """The 8-bit codes of a weight, as floats of its shape, and one symmetric scale for each
    output channel."""
    scales = (np.abs(weight).reshape(len(weight), -1).max(1) / CODES).clip(1e-8)
    return np.rint(weight / scales.reshape(-1, *[1] * (weight.ndim - 1))), scales


def content(path: Path, remedy: str = REMEDY) -> bytes:
    """The bytes of a file of weights; raises `errors.Error` with what to do where there are
    none."""
    try:
        return path.read_bytes()
    except OSError as problem:
        raise errors.Error(
            f"{path} cannot be read ({problem.strerror}): reinstall promptmill, or {remedy}"
        ) from problem


@contextmanager
def sound(path: Path, remedy: str = REMEDY) -> Iterator[None]:
    """Within it, what a file's contents lead to is the file's fault: raises `errors.Error`."""
    try:
        yield
    except _UNSOUND as problem:
        raise damaged(path, remedy) from problem


def damaged(path: Path, remedy: str = REMEDY) -> errors.Error:
    return errors.Error(f"{path} is damaged: reinstall promptmill, or {remedy}")
