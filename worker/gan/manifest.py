"""What a step of compression made, from what, with which settings, and what was measured of it
and how: `manifest.json` beside the weights."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

FILE = "manifest.json"
LIBRARIES = ("numpy", "torch", "onnx", "onnxruntime")
Render = Callable[["Tensor"], "Tensor"]  # conditions [B, 416] -> pixels uint8 [B, 3, 64, 64]


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value, its unit and how it was measured."""

    value: float
    unit: str
    how: str


def write(
    folder: Path,
    what: str,
    *,
    made: Sequence[str],
    source: Mapping[str, str],
    settings: Mapping[str, object],
    figures: Mapping[str, Figure],
) -> None:
    """what: the command's name. made: files in `folder`. source: name → SHA-256 of what it was
    made from."""
    told = {
        "what": what,
        "made": {name: _file(folder / name) for name in made},
        "from": dict(source),
        "settings": dict(settings),
        "figures": {name: asdict(figure) for name, figure in figures.items()},
        "versions": {"python": platform.python_version(), **_versions()},
    }
    beside = folder / f"{FILE}.part"
    beside.write_text(json.dumps(told, indent=1) + "\n")
    beside.replace(folder / FILE)


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _file(path: Path) -> dict[str, object]:
    return {"sha256": digest(path), "bytes": path.stat().st_size}


def closeness(made: Render, source: Render, conditions: Sequence[Tensor]) -> Figure:
    """PSNR of one network's pictures to another's over batches of conditions [B, 416]."""
    import torch

    errors = [(made(given).float() - source(given).float()).square().mean() for given in conditions]
    mean = torch.stack(errors).mean().clamp_min(1e-12)
    count = sum(len(given) for given in conditions)
    return Figure(
        round((10 * torch.log10(255**2 / mean)).item(), 2),
        "dB",
        f"PSNR of uint8 pictures over {count} conditions that training never drew",
    )


def parameters(network: nn.Module) -> Figure:
    count = sum(parameter.numel() for parameter in network.parameters())
    return Figure(count, "numbers", "weights and biases of the folded network")
