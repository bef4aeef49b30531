"""The files of shipped weights, without torch: read whole and checked, or refused by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
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

Floats = NDArray[np.float32]


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
    facts_bytes, network_bytes = _bytes(facts_path), _bytes(network_path)
    try:
        facts: dict[str, Any] = json.loads(facts_bytes)
        if facts["format"] != FORMAT:
            raise errors.Error(f"{facts_path} has format {facts['format']}, not {FORMAT}: update")
        widths = {stage: int(count) for stage, count in facts["widths"].items()}
        ranges = {stage: (float(a), float(b)) for stage, (a, b) in facts["ranges"].items()}
        step, expected = int(facts["step"]), facts["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise damaged(facts_path) from problem
    if hashlib.sha256(network_bytes).hexdigest() != expected:
        raise damaged(network_path)
    try:
        tensors = _decoded(load(network_bytes))
    except (SafetensorError, KeyError, ValueError) as problem:
        raise damaged(network_path) from problem
    return Contents(widths, ranges, tensors, step, hashlib.sha256(facts_bytes).hexdigest())


def _decoded(tensors: Mapping[str, NDArray[Any]]) -> dict[str, Floats]:
    """Weights in float32, of float16 or of 8-bit codes with a scale for each output channel."""
    found = {}
    for name, value in tensors.items():
        if name.endswith(SCALE):
            continue
        found[name] = value.astype(np.float32)
        if value.dtype == np.int8:
            shape = (-1, *[1] * (value.ndim - 1))
            found[name] *= tensors[name + SCALE].reshape(shape)
    return found


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise errors.Error(
            f"{path} cannot be read ({problem.strerror}): reinstall promptmill, or make the "
            "weights with python -m worker.gan.export"
        ) from problem


def damaged(path: Path) -> errors.Error:
    return errors.Error(
        f"{path} is damaged: reinstall promptmill, or make the weights with "
        "python -m worker.gan.export"
    )
