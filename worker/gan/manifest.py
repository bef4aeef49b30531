"""What a step of compression made, from what, with which settings, and what was measured of it
and how: `manifest.json` beside the weights."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from worker.gan import checkpoint

FILE = "manifest.json"
Render = Callable[[Tensor], Tensor]  # conditions [B, 416] -> pixels uint8 [B, 3, 64, 64]


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
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
    }
    text = json.dumps(told, indent=1) + "\n"
    checkpoint.write(folder / FILE, lambda path: path.write_text(text))


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _file(path: Path) -> dict[str, object]:
    return {"sha256": digest(path), "bytes": path.stat().st_size}


def closeness(made: Render, source: Render, conditions: Sequence[Tensor]) -> Figure:
    """PSNR of one network's pictures to another's over batches of conditions [B, 416]."""
    errors = [(made(given).float() - source(given).float()).square().mean() for given in conditions]
    mean = torch.stack(errors).mean().clamp_min(1e-12)
    count = sum(len(given) for given in conditions)
    return Figure(
        round((10 * torch.log10(255**2 / mean)).item(), 2),
        "dB",
        f"PSNR of uint8 pictures over {count} conditions that training never drew",
    )


def parameters(network: torch.nn.Module) -> Figure:
    count = sum(parameter.numel() for parameter in network.parameters())
    return Figure(count, "numbers", "weights and biases of the folded network")
